"""Options A, B and C: whether a shortcut should have weights.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", Sections 3.3 and 4.1, Table 3.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from convatlas.models.network import check_count
from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from convatlas.studies.context import StudyContext

KINDS = ("plain", "A", "B", "C")
"""No shortcut; zeros for new channels; projections where shapes differ; projections everywhere."""

PUBLISHED = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}
"""Top-1 error of 34 layers on ImageNet with ten crops, in %: Tables 2 and 3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortcutsKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: layers of each network, 6n + 2.
        recipe: how all are trained.
        batch_size: images of a step.
        lr: largest learning rate.
        pad: px by which augmentation shifts at most; the paper's 4 are for images of 32 px.
    """

    depth: int = 32
    recipe: str = "resnet_cifar"
    batch_size: int = 128
    lr: float = 0.1
    pad: int = 4

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: no network has that depth, or a count is out of its range.
        """
        super().__post_init__()
        check_count("batch_size", self.batch_size, least=1)
        check_count("pad", self.pad, least=1)
        if self.depth < 8 or (self.depth - 2) % 6:
            near = max(8, self.depth - (self.depth - 2) % 6)
            raise ValueError(f"`depth`={self.depth}; expected 6n + 2 layers, near {near}")


Errors = dict[str, list[float]]
"""By kind: the test error in % for each seed."""


def run(ctx: StudyContext[ShortcutsKnobs]) -> Outcome:
    """Counts the weights of each option, then trains each network for each seed."""
    errors = {kind: [_test_error(ctx, kind, seed) for seed in ctx.seeds] for kind in KINDS}
    return Outcome(
        findings=(*count_facts(), *find(errors)),
        tables=(_table(ctx, errors),),
        figures={"shortcuts.png": render(functools.partial(draw, errors))},
        reading=_reading(ctx.knobs.depth, errors),
    )


def count_facts() -> tuple[Fact, ...]:
    """What the options cost in parameters, counted in built networks against the arithmetic.

    A projection from M to N channels has M x N weights and a scale and a shift for each of its N outputs.
    """
    counts = {kind: _params(create_model("resnet34", shortcut=kind)) for kind in "ABC"}
    opening = ((64, 128), (128, 256), (256, 512))
    others = ((64, 64),) * 3 + ((128, 128),) * 3 + ((256, 256),) * 5 + ((512, 512),) * 2
    unit = create_model("resnet50_v1").get_submodule("stages.0.1")
    weights = sum(parameter.numel() for parameter in unit.parameters() if parameter.ndim == 4)
    return (
        Fact(
            name="ResNet-34: parameters of option B more than A, three projections",
            value=counts["B"] - counts["A"],
            claimed=projected(opening),
            note=f"{counts['A']:,} and {counts['B']:,} in all",
        ),
        Fact(
            name="ResNet-34: parameters of option C more than B, thirteen projections",
            value=counts["C"] - counts["B"],
            claimed=projected(others),
            note=f"{counts['C']:,} in all",
        ),
        Fact(
            name="ResNet-50: weights of a 256-to-256 projection over those of the bottleneck it bypasses",
            value=256 * 256 / weights,
            claimed=256 * 256 / (256 * 64 + 9 * 64 * 64 + 64 * 256),
            tolerance=1e-9,
            note="so that with projections everywhere a bottleneck network would be twice as large",
        ),
    )


def projected(pairs: Iterable[tuple[int, int]]) -> int:
    """Parameters of 1x1 projections with batch normalisation.

    Args:
        pairs: channels that enter and leave each.
    """
    return sum(entering * leaving + 2 * leaving for entering, leaving in pairs)


def _params(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def find(errors: Errors) -> tuple[Effect, ...]:
    """The effects; the first two decide."""
    seeds = list(zip(*(errors[kind] for kind in KINDS), strict=True))
    published = PUBLISHED
    gain, more = published["plain"] - published["A"], published["A"] - published["C"]
    return (
        Effect(
            name="test error, no shortcut minus option A",
            values=tuple(plain - a for plain, a, _, _ in seeds),
            unit="points",
            published=f"{gain:.2f} (34 layers)",
        ),
        Effect(
            name="what identities gain (no shortcut minus A) minus what projections add (A minus C)",
            values=tuple((plain - a) - (a - c) for plain, a, _, c in seeds),
            unit="points",
            published=f"{gain - more:.2f}",
        ),
        Effect(
            name="test error, option A minus B",
            values=tuple(a - b for _, a, b, _ in seeds),
            unit="points",
            published=f"{published['A'] - published['B']:.2f}",
            decides=False,
        ),
        Effect(
            name="test error, option B minus C",
            values=tuple(b - c for _, _, b, c in seeds),
            unit="points",
            published=f"{published['B'] - published['C']:.2f}",
            decides=False,
        ),
    )


def _network(kind: str, depth: int) -> tuple[str, dict[str, Any]]:
    """Name in the registry and changes to its config."""
    blocks: dict[str, Any] = {"blocks_per_stage": (depth - 2) // 6}
    return ("plain20_cifar", blocks) if kind == "plain" else ("resnet20_cifar", blocks | {"shortcut": kind})


def _test_error(ctx: StudyContext[ShortcutsKnobs], kind: str, seed: int) -> float:
    knobs = ctx.knobs
    name, model = _network(kind, knobs.depth)
    return ctx.train(
        name,
        seed=seed,
        model=model,
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        batch_size=knobs.batch_size,
        lr=knobs.lr,
        augment={"flip": 0.5, "pad_crop": {"pad": knobs.pad}},
    ).test_error


def _table(ctx: StudyContext[ShortcutsKnobs], errors: Errors) -> Table:
    rows: list[tuple[str, ...]] = []
    for kind, values in errors.items():
        name, model = _network(kind, ctx.knobs.depth)
        count = _params(create_model(name, in_chans=ctx.in_chans, num_classes=ctx.num_classes, **model))
        each = ", ".join(f"{value:.2f}" for value in values)
        mean = f"{statistics.fmean(values):.2f} %"
        rows.append((kind, f"{count:,}", mean, each, f"{PUBLISHED[kind]:.2f} %"))
    heads = ("shortcut", "parameters", "test error", "each seed", "published (ImageNet, 34 layers)")
    return Table(f"Each network of {ctx.knobs.depth} layers", heads, tuple(rows))


def _reading(depth: int, errors: Errors) -> str:
    means = {kind: statistics.fmean(values) for kind, values in errors.items()}
    options = [means[kind] for kind in "ABC"]
    return (
        f"With {depth} layers, any shortcut brings the test error from {means['plain']:.1f} % to between "
        f"{min(options):.1f} and {max(options):.1f} %. The paper puts B half a point below A and C a third "
        "of a point below B, and calls projections not essential; differences as small as these need more "
        "seeds and images than the quick preset has, so they are reported and do not decide."
    )


def draw(errors: Errors, figure: Figure) -> None:
    """Test errors measured here, every seed a dot, beside the paper's."""
    here, paper = figure.subplots(1, 2)
    for place, (kind, values) in enumerate(errors.items()):
        colour = "C1" if kind == "plain" else "C0"
        here.scatter([place] * len(values), values, color=colour)
        here.hlines(statistics.fmean(values), place - 0.25, place + 0.25, color=colour)
        paper.scatter([place], [PUBLISHED[kind]], color=colour, marker="D")
        paper.annotate(
            f"{PUBLISHED[kind]:.2f}", (place, PUBLISHED[kind]), xytext=(8, -3), textcoords="offset points"
        )
    names = ["none" if kind == "plain" else f"option {kind}" for kind in errors]
    for axes in (here, paper):
        axes.set_xticks(range(len(names)), names)
        axes.set(xlabel="shortcut", ylabel="test error (%)", xlim=(-0.5, len(names) - 0.3))
    here.set_title("measured here (dots: seeds, line: mean)")
    paper.set_title("published: ImageNet, 34 layers, top-1")


STUDY = Study(
    name="shortcuts",
    source="He et al. 2015, arXiv 1512.03385, Sections 3.3 and 4.1, Tables 2 and 3",
    published=(
        "ImageNet, 34 layers, 10 crops, top-1: plain 28.54, option A 25.03, B 24.52, C 24.19 %",
        "B is slightly better than A, C marginally better than B; projections are not essential",
    ),
    protocol="Networks of equal depth without shortcuts and with each option are trained alike from the same "
    "seeds. Parameters of ResNet-34 with each option are counted in the built network and by hand.",
    refuted_by="Identity shortcuts (A) that gain nothing; or projections that add as much to them as they "
    "gained; or other counts of parameters.",
    presets={
        "quick": ShortcutsKnobs(
            images=2500, test_images=2000, px=10, epochs=4, batch_size=50, lr=0.05, pad=1, seeds=5
        ),
        "standard": ShortcutsKnobs(images=20000, epochs=3, depth=44),
        "full": ShortcutsKnobs(data="cifar10", epochs=164, depth=56, seeds=5),
    },
    run=run,
)
