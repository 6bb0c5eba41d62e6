"""Test time: what averaging over crops, over scales and over networks gains without any further training.

Krizhevsky et al. 2012, AlexNet (ten crops, five networks); Simonyan and Zisserman 2014, VGG, Section 4
(dense, several scales); Szegedy et al. 2014, GoogLeNet, Section 7 (144 crops, seven networks).
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from convatlas.evaluation.crops import Protocol
from convatlas.evaluation.logits import Tables, make_member
from convatlas.models.network import check_count
from convatlas.plots.style import render
from convatlas.predict.predictor import Predictor
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.data.sets import Samples
    from convatlas.studies.context import StudyContext, Trained

NOMINAL_PX = 224
"""Px of the crops for which the scales are given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestTimeKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        members: networks of an ensemble; each seed trains as many.
        blocks: residual blocks in each of three stages; 6 x that + 2 layers.
        scales: px of the images' short side for crops of 224 px, lowest, middle and highest; training
            draws sizes from lowest to highest, tests at one scale use the middle one.
        recipe: how all are trained, but for the augmentation.
        batch_size: images of a step.
        lr: largest learning rate.
    """

    __test__ = False  # Not a class of tests, whatever pytest makes of its name.

    members: int = 3
    blocks: int = 1
    scales: tuple[int, int, int] = (256, 288, 320)
    recipe: str = "resnet_cifar"
    batch_size: int = 128
    lr: float = 0.1

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        check_count("members", self.members, least=2)
        check_count("blocks", self.blocks, least=1)
        check_count("batch_size", self.batch_size, least=1)
        if len(self.scales) != 3 or not NOMINAL_PX < self.scales[0] < self.scales[1] < self.scales[2]:
            raise ValueError(
                f"`scales`={list(self.scales)}; expected three that rise from above {NOMINAL_PX} px, such as "
                "[256, 288, 320]"
            )


Errors = dict[tuple[str, int], list[float]]
"""By protocol and number of networks: the test error in % for each seed; of one network, the mean of them."""


def protocols(px: int, scales: Sequence[int]) -> dict[str, Protocol]:
    """The ways of showing an image, for crops of `px`.

    Args:
        px: that the networks see.
        scales: as in `TestTimeKnobs`.
    """
    low, middle, high = (round(px * scale / NOMINAL_PX) for scale in scales)
    return {
        "1 crop": Protocol("single", (middle,)),
        "10 crops": Protocol("10crop", (middle,)),
        "dense": Protocol("dense", (middle,), flip=True),
        "dense, 3 scales": Protocol("multiscale", (low, middle, high), flip=True),
    }


def run(ctx: StudyContext[TestTimeKnobs]) -> Outcome:
    """Trains an ensemble for each seed and tests it and its members by each protocol."""
    knobs = ctx.knobs
    size = ctx.source.image_size
    if size is None or size[1] != size[2]:
        raise ValueError(f"`data`={knobs.data!r}; expected square images of one size")
    shown = protocols(size[1], knobs.scales)
    errors: Errors = {(name, count): [] for count in (1, knobs.members) for name in shown}
    for seed in ctx.seeds:
        nets = [_train(ctx, seed * knobs.members + number) for number in range(knobs.members)]
        for name, protocol in shown.items():
            logits = [score(ctx, trained, protocol) for trained in nets]
            alone = [share_wrong(ctx.source.test, [views]) for views in logits]
            errors[name, 1].append(statistics.fmean(alone))
            errors[name, knobs.members].append(share_wrong(ctx.source.test, logits))
    return Outcome(
        findings=find(errors, knobs.members),
        tables=(_table(errors, shown),),
        figures={"test-time.png": render(functools.partial(draw, errors))},
        reading=_reading(errors, knobs.members),
    )


def find(errors: Errors, members: int) -> tuple[Effect, ...]:
    """The effects; crops, scales and networks, each alone, decide."""

    def gain(
        name: str, less: tuple[str, int], more: tuple[str, int], published: str = "", decides: bool = True
    ) -> Effect:
        pairs = zip(errors[less], errors[more], strict=True)
        values = tuple(before - after for before, after in pairs)
        return Effect(name=name, values=values, unit="points", published=published, decides=decides)

    return (
        gain(
            "test error of one network, 1 crop minus 10 crops",
            ("1 crop", 1),
            ("10 crops", 1),
            "GoogLeNet, top-5: 10.07 - 9.15 = 0.92",
        ),
        gain(
            "test error of one network, dense at one scale minus three",
            ("dense", 1),
            ("dense, 3 scales", 1),
            "VGG-16: 25.6 - 24.8 = 0.8",
        ),
        gain(
            f"test error with 1 crop, one network minus {members}",
            ("1 crop", 1),
            ("1 crop", members),
            "AlexNet, 5 networks: 40.7 - 38.1 = 2.6",
        ),
        gain(
            f"test error, one network with 1 crop minus {members} with 10",
            ("1 crop", 1),
            ("10 crops", members),
            "GoogLeNet, 7 networks and 144 crops, top-5: 10.07 - 6.67 = 3.40",
            decides=False,
        ),
        gain(
            f"test error with 10 crops, one network minus {members}",
            ("10 crops", 1),
            ("10 crops", members),
            "GoogLeNet, 7 networks, 144 crops, top-5: 7.89 - 6.67 = 1.22",
            decides=False,
        ),
    )


def _train(ctx: StudyContext[TestTimeKnobs], seed: int) -> Trained:
    knobs = ctx.knobs
    low, _, high = knobs.scales
    return ctx.train(
        "resnet20_cifar",
        seed=seed,
        model={"blocks_per_stage": knobs.blocks},
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        batch_size=knobs.batch_size,
        lr=knobs.lr,
        augment={"flip": 0.5, "scale_jitter": {"low": low, "high": high}},
    )


def score(ctx: StudyContext[TestTimeKnobs], trained: Trained, protocol: Protocol) -> list[Tensor]:
    """Logits of a network for the views of each test image, (V, K)."""
    predictor = Predictor(
        trained.net,
        transform=trained.transform,
        class_names=ctx.source.class_names,
        workers=1,
        device="cpu",
    )
    member = make_member(predictor, protocol, is_ready=True)
    test, found = ctx.source.test, list[Tensor]()
    for begin in range(0, len(test), 64):
        images = [test.image(row) for row in range(begin, min(begin + 64, len(test)))]
        views = [[view for scale in member.views(image) for view in scale] for image in images]
        found += member.logits(views, batch_size=256)
    return found


def share_wrong(samples: Samples, logits: Sequence[Sequence[Tensor]]) -> float:
    """Wrong answers in %, by the probabilities averaged over the views and then over the networks.

    Args:
        samples: the images, N of them.
        logits: of each network, for each image (V, K).
    """
    tables = Tables(samples.labels, "probabilities")
    for row, views in enumerate(zip(*logits, strict=True)):
        tables.fill(row, views)
    return 100.0 * float((tables.predicted != tables.labels).double().mean())


def _table(errors: Errors, shown: dict[str, Protocol]) -> Table:
    rows: list[tuple[str, ...]] = []
    for (name, count), values in errors.items():
        scales = shown[name].scales or ()
        views = {"1 crop": "1", "10 crops": "10"}.get(name, f"{2 * len(scales)} whole images")
        each = ", ".join(f"{value:.2f}" for value in values)
        at = ", ".join(map(str, scales))
        rows.append((str(count), name, views, at, f"{statistics.fmean(values):.2f} %", each))
    heads = ("networks", "protocol", "views", "px of the short side", "test error", "each seed")
    return Table("Each way of testing", heads, tuple(rows))


def _reading(errors: Errors, members: int) -> str:
    means = {key: statistics.fmean(values) for key, values in errors.items()}
    best = min(means, key=lambda key: means[key])
    return (
        f"One network and one crop err on {means['1 crop', 1]:.2f} % of the images, ten crops on "
        f"{means['10 crops', 1]:.2f} %, and {members} networks with one crop on "
        f"{means['1 crop', members]:.2f} %. Dense evaluation goes from {means['dense', 1]:.2f} % at one "
        f"scale to {means['dense, 3 scales', 1]:.2f} % at three. The lowest error, {means[best]:.2f} %, is "
        f"that of {'one network' if best[1] == 1 else f'{best[1]} networks'} with the protocol '{best[0]}'. "
        "Each prediction pays for it: ten crops cost ten times one, and networks multiply that."
    )


def draw(errors: Errors, figure: Figure) -> None:
    """Test error of each protocol, for one network and for the ensemble, every seed as a dot."""
    axes = figure.subplots()
    names = list(dict.fromkeys(name for name, _ in errors))
    for index, count in enumerate(sorted({count for _, count in errors})):
        shift = 0.16 * (2 * index - 1)
        for place, name in enumerate(names):
            values = errors[name, count]
            x, mean = place + shift, statistics.fmean(values)
            label = (
                ("one network (mean of the ensemble's)", f"ensemble of {count}")[index] if not place else None
            )
            axes.scatter([x] * len(values), values, color=f"C{index}", s=18, label=label)
            axes.hlines(mean, x - 0.12, x + 0.12, color=f"C{index}")
            axes.annotate(f"{mean:.2f}", (x + 0.03, mean), xytext=(6, 4), textcoords="offset points", size=8)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="how an image is shown", ylabel="test error (%)", xlim=(-0.5, len(names) - 0.4))
    axes.set_title("the same networks, tested in different ways (dots: seeds, line: mean)")
    axes.legend()


STUDY = Study(
    name="test-time",
    source="Krizhevsky et al. 2012, AlexNet, Table 2; Simonyan and Zisserman 2014, VGG, Tables 3 and 4; "
    "Szegedy et al. 2014, GoogLeNet, Table 3",
    published=(
        "AlexNet, ImageNet top-1: 1 network 40.7, 5 networks 38.1 %",
        "GoogLeNet, ImageNet top-5: 1 crop 10.07, 10 crops 9.15, 144 crops 7.89; 7 networks with 144: 6.67 %",
        "VGG-16, ImageNet top-1, dense: single scale 25.6, three scales 24.8 %",
    ),
    protocol="For each seed an ensemble of small residual networks is trained on random crops of random "
    "scale. Each network, and all together, are tested by the papers' protocols on the same images: the "
    "middle crop, ten crops, the classifier sliding over the whole image, and that at three scales; the "
    "last two with mirror images.",
    refuted_by="An average over crops, over scales or over networks that errs no less than what it averages.",
    presets={
        "quick": TestTimeKnobs(images=3000, test_images=2000, px=16, epochs=4, batch_size=32, lr=0.05),
        "standard": TestTimeKnobs(images=20000, epochs=6, members=4),
        "full": TestTimeKnobs(data="cifar10", epochs=164, blocks=3, members=5, seeds=5),
    },
    run=run,
)
