"""Compound scaling: whether depth, width and resolution together err less than any of them alone.

Tan and Le 2019, "EfficientNet", Sections 3.2, 3.3 and 5.1 (Table 3); Dollar, Singh and Girshick 2021, "Fast
and Accurate Model Scaling", for scaling mostly by width.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from convatlas.files import write_json
from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.scaling.budget import Budget
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, WIDTH, Base, open_base
from convatlas.scaling.rules import RULES
from convatlas.scaling.search import Curve, exact_value, search, size_range
from convatlas.studies.context import StudyContext
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.timing import NO_CROP, time_in_turns
from convatlas.studies.verdict import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("depth", "width", "resolution")
RULE_NAMES = ("compound", "fast", *AXES)
ARMS = ("MACs", "latency")
"""What is the same for all rules."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompoundScalingKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        rules: that are compared, compound first.
        network: the base; it has a depth and a width to scale.
        cost: how many times the base's MACs the scaled networks may have.
        recipe: how all are trained, on a cosine and without random crops.
        lr: largest learning rate.
        batch_size: images of a step.
        rounds: values that a latency is the median of.
    """

    rules: tuple[str, ...] = RULE_NAMES
    network: str = "resnet20_cifar"
    cost: float = 4.0
    recipe: str = "resnet_cifar"
    lr: float = 0.1
    batch_size: int = 32
    rounds: int = 5

    def __post_init__(self) -> None:
        """Checks that the networks grow.

        Raises:
            ValueError: the cost is not above 1, there are no rounds, or the rules do not begin with compound.
        """
        super().__post_init__()
        if len(self.rules) < 2 or self.rules[0] != "compound" or not set(self.rules) <= set(RULE_NAMES):
            raise ValueError(
                f"`rules`={list(self.rules)}; expected compound first, then some of "
                f"{', '.join(RULE_NAMES[1:])}"
            )
        if not self.cost > 1:
            raise ValueError(f"`cost`={self.cost!r}; expected more than 1, such as 4.0")
        if self.rounds < 1:
            raise ValueError(f"`rounds`={self.rounds!r}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A scaled network.

    Attributes:
        rule: that it was scaled by.
        candidate: multipliers and px.
        params: parameters.
        macs: multiply-adds of an image.
        seconds: of one image, by torch as it is.
    """

    rule: str
    candidate: Candidate
    params: int
    macs: int
    seconds: float


Errors = Mapping[str, Mapping[str, list[float]]]
"""By arm and rule: the test error for each seed, %."""


def run(ctx: StudyContext[CompoundScalingKnobs]) -> Outcome:
    """Scales by each rule to the same MACs, and to the same latency; trains all."""
    base = base_of(ctx)
    model = CostModel(base)
    equal = {"MACs": equal_macs(base, model, ctx.knobs)}
    equal["latency"] = _kept_equal_latency(ctx, base, model, equal["MACs"])
    errors = {
        arm: {each.rule: [_test_error(ctx, each, seed) for seed in ctx.seeds] for each in networks}
        for arm, networks in equal.items()
    }
    return Outcome(
        findings=find(errors),
        tables=tuple(_table(arm, networks, errors[arm]) for arm, networks in equal.items()),
        figures={"compound-scaling.png": render(functools.partial(draw, equal, errors))},
        reading=_reading(errors, equal),
    )


def base_of(ctx: StudyContext[CompoundScalingKnobs]) -> Base:
    """The base network for the data: its classes, channels and px."""
    knobs = ctx.knobs
    px = knobs.px or (ctx.source.image_size or (0, 0, 0))[1]
    base = open_base(knobs.network, {"num_classes": ctx.num_classes, "in_chans": ctx.in_chans})
    return dataclasses.replace(base, input_size=px) if px else base


def equal_macs(base: Base, model: CostModel, knobs: CompoundScalingKnobs) -> list[Scaled]:
    """For each rule the network whose MACs come closest to `cost` times the base's from below."""
    own = model(Candidate(base.knob(DEPTH), base.knob(WIDTH), base.input_size)).macs
    budget = Budget(macs=knobs.cost * own)
    found: list[Candidate] = []
    for name in knobs.rules:
        curve = Curve(base, RULES[name], size_range(base, None))
        found.append(search(curve, exact_value(model, 1), budget).candidate)
    return _timed(base, model, dict(zip(knobs.rules, found, strict=True)), knobs.rounds)


def equal_latency(
    base: Base, model: CostModel, reference: Scaled, knobs: CompoundScalingKnobs
) -> list[Scaled]:
    """For each rule the network that takes as long as compound's, found by halving along its curve."""
    found = {"compound": reference.candidate}
    for name in knobs.rules[1:]:
        curve = Curve(base, RULES[name], size_range(base, None))
        low, high, best = -2.0, 6.0, curve.at(0.0)
        for _ in range(7):
            phi = (low + high) / 2
            candidate = curve.at(phi)
            pair = {"compound": reference.candidate, name: candidate}
            there, here = (each.seconds for each in _timed(base, model, pair, knobs.rounds))
            low, high = (phi, high) if here <= there else (low, phi)
            best = candidate if here <= there else best
        found[name] = best
    return _timed(base, model, found, knobs.rounds)


def _kept_equal_latency(
    ctx: StudyContext[CompoundScalingKnobs], base: Base, model: CostModel, known: list[Scaled]
) -> list[Scaled]:
    """As measured when the study began, so that a study that was stopped goes on with the same networks."""
    knobs = ctx.knobs
    name = f"compound-scaling-{knobs.network}-{base.input_size}px-{knobs.cost:g}-{len(knobs.rules)}.json"
    path = ctx.runs / name
    if path.is_file():
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_read_scaled(row) for row in rows]
    found = equal_latency(base, model, known[0], knobs)
    ctx.runs.mkdir(parents=True, exist_ok=True)
    write_json(path, [dataclasses.asdict(each) for each in found])
    return found


def _read_scaled(row: dict[str, Any]) -> Scaled:
    fields: dict[str, Any] = {**row, "candidate": Candidate(*row["candidate"])}
    return Scaled(**fields)


def _timed(base: Base, model: CostModel, candidates: Mapping[str, Candidate], rounds: int) -> list[Scaled]:
    """The networks with their costs, and the seconds of one image, all timed in turns."""
    steps = [_step(base, model, candidate) for candidate in candidates.values()]
    times = time_in_turns(steps, rounds)
    return [
        Scaled(rule, candidate, *model(candidate), statistics.median(taken))
        for (rule, candidate), taken in zip(candidates.items(), times, strict=True)
    ]


def _step(base: Base, model: CostModel, candidate: Candidate) -> Any:
    options: dict[str, Any] = {**base.overrides, **model.knobs(candidate)}
    net = create_model(base.network, features_only=False, **options).eval()
    image = torch.zeros(1, net.config.in_chans, candidate.input_size, candidate.input_size)

    @torch.inference_mode()
    def step() -> object:
        return net(image)

    return step


def _test_error(ctx: StudyContext[CompoundScalingKnobs], scaled: Scaled, seed: int) -> float:
    knobs, candidate = ctx.knobs, scaled.candidate
    at_size = StudyContext(
        knobs=dataclasses.replace(knobs, px=candidate.input_size),
        runs=ctx.runs,
        log=ctx.log,
        reused=ctx.reused,
    )
    return at_size.train(
        knobs.network,
        seed=seed,
        model={DEPTH: candidate.depth_mult, WIDTH: candidate.width_mult},
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
        schedule="cosine",
        **NO_CROP,
    ).test_error


def find(errors: Errors) -> tuple[Effect, ...]:
    """What each rule errs more than compound, at the same MACs and at the same latency."""
    published = {
        "depth": "MobileNetV2, Table 3: 77.4 against 76.8 % accuracy, 0.6",
        "width": "MobileNetV2, Table 3: 77.4 against 76.4 % accuracy, 1.0",
        "resolution": "MobileNetV2, Table 3: 77.4 against 74.8 % accuracy, 2.6",
        "fast": "Dollar et al. find about the same accuracy, sooner",
    }
    return tuple(
        Effect(
            name=f"test error at equal {arm}, {rule} minus compound",
            values=tuple(
                other - compound
                for other, compound in zip(errors[arm][rule], errors[arm]["compound"], strict=True)
            ),
            unit="points",
            published=published[rule] if arm == "MACs" else "",
            decides=rule in AXES,
        )
        for arm in ARMS
        for rule in list(errors[arm])[1:]
    )


def _table(arm: str, networks: list[Scaled], errors: Mapping[str, list[float]]) -> Table:
    rows = tuple(
        (
            each.rule,
            f"{each.candidate.depth_mult:g}",
            f"{each.candidate.width_mult:g}",
            f"{each.candidate.input_size}",
            f"{each.params / 1e3:,.0f} k",
            f"{each.macs / 1e6:.1f} M",
            f"{each.seconds * 1e3:.2f} ms",
            f"{statistics.fmean(errors[each.rule]):.2f} %",
            ", ".join(f"{error:.2f}" for error in errors[each.rule]),
        )
        for each in networks
    )
    heads = (
        "rule", "depth", "width", "px", "parameters", "MACs of an image", "time of an image", "test error",
        "each seed",
    )  # fmt: skip
    return Table(f"At equal {arm}", heads, rows)


def _reading(errors: Errors, equal: Mapping[str, list[Scaled]]) -> str:
    said: list[str] = []
    for arm in ARMS:
        means = {rule: statistics.fmean(values) for rule, values in errors[arm].items()}
        best = min(means, key=lambda rule: means[rule])
        said.append(
            f"At equal {arm}, compound errs in {means['compound']:.1f} % on average, the best rule, {best}, "
            f"in {means[best]:.1f} %."
        )
    times = {each.rule: each.seconds for each in equal["MACs"]}
    slow, quick = max(times, key=lambda rule: times[rule]), min(times, key=lambda rule: times[rule])
    said.append(
        f"Of the networks with equal MACs, {slow} takes {times[slow] / times[quick]:.1f} times as long "
        f"as {quick}."
    )
    return " ".join(said)


def draw(equal: Mapping[str, list[Scaled]], errors: Errors, figure: Figure) -> None:
    """Test error over time, at equal MACs and at equal latency."""
    for axes, arm in zip(figure.subplots(1, 2, sharey=True), ARMS, strict=True):
        for i, each in enumerate(equal[arm]):
            values, x = errors[arm][each.rule], each.seconds * 1e3
            axes.plot([x], [statistics.fmean(values)], f"C{i}o", label=each.rule)
            axes.scatter([x] * len(values), values, color=f"C{i}", s=12, alpha=0.6)
        axes.set(xlabel="measured time of one image (ms)", title=f"at equal {arm}")
        axes.legend()
    figure.axes[0].set_ylabel("test error (%)")


STUDY = Study(
    name="compound-scaling",
    source="Tan and Le 2019, EfficientNet, arXiv 1905.11946, Sections 3.3 and 5.1, Table 3",
    published=(
        "MobileNetV1 at twice the width 74.2 %, at twice the resolution 72.7 %, compound 75.6 % on ImageNet",
        "MobileNetV2 at 4 times the depth 76.8 %, the width 76.4 %, the resolution 74.8 %, compound 77.4 %",
        "ResNet-50 at 4 times the depth 78.1 %, the width 77.7 %, the resolution 77.5 %, compound 78.8 %",
    ),
    protocol="A base network is scaled by each rule to the same exact number of multiply-adds, and to the "
    "same measured time of one image; all are trained alike, each at its own px, from the same seeds.",
    refuted_by="A test error of a network scaled in depth, width or resolution alone that is no higher than "
    "that of the compound one, at equal MACs or at equal latency.",
    presets={
        "quick": CompoundScalingKnobs(images=2000, test_images=3000, px=14, epochs=4, seeds=2, cost=3.0),
        "standard": CompoundScalingKnobs(images=20000, px=16, epochs=6, batch_size=128),
        "full": CompoundScalingKnobs(data="cifar10", px=24, epochs=100, seeds=5, batch_size=128),
    },
    run=run,
)
