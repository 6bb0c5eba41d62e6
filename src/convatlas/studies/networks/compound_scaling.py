"""Compound scaling: whether depth, width and resolution together err less than any of them alone.

Tan and Le 2019, "EfficientNet", Sections 3.2, 3.3 and 5.1 (Table 3); Dollar, Singh and Girshick 2021, "Fast
and Accurate Model Scaling", for scaling mostly by width.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping
from typing import Any

import torch

from convatlas.files import write_json
from convatlas.models.network import check_count
from convatlas.models.registry import create_model
from convatlas.scaling.budget import Budget
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, WIDTH, Base, open_base
from convatlas.scaling.rules import RULES
from convatlas.scaling.search import Curve, exact_value, search, size_range
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.timing import time_in_turns

AXES = ("depth", "width", "resolution")


RULE_NAMES = ("compound", "fast", *AXES)


COSTS = ("MACs", "latency")
"""What is the same for all rules."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompoundScalingKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        network: the base; it has a depth and a width to scale.
        cost: how many times the base's MACs the scaled networks may have.
        rounds: values that a latency is the median of.
    """

    network: str = "resnet20_cifar"
    cost: float = 4.0
    rounds: int = 5

    def __post_init__(self) -> None:
        """Checks that the networks grow.

        Raises:
            ValueError: if the cost is not above 1, or there are no rounds.
        """
        super().__post_init__()
        if not self.cost > 1:
            raise ValueError(f"`cost`={self.cost!r}; expected more than 1, such as 4.0")
        check_count("rounds", self.rounds, least=1)


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


def run(ctx: StudyContext[CompoundScalingKnobs]) -> Outcome:
    """Scales by each rule to the same MACs, and to the same latency; trains all."""
    base = base_of(ctx)
    model = CostModel(base)
    equal = {"MACs": equal_macs(base, model, ctx.knobs)}
    equal["latency"] = _kept_equal_latency(ctx, base, model, equal["MACs"])
    arms = {
        f"{each.rule}, equal {cost}": Arm(
            network=ctx.knobs.network,
            model={DEPTH: each.candidate.depth_mult, WIDTH: each.candidate.width_mult},
            px=each.candidate.input_size,
        )
        for cost, networks in equal.items()
        for each in networks
    }
    return Outcome(
        compared=compare(ctx, arms),
        tables=tuple(_table(cost, networks) for cost, networks in equal.items()),
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
    found = {
        name: search(
            Curve(base, RULES[name], size_range(base, None)), exact_value(model, 1), budget
        ).candidate
        for name in RULE_NAMES
    }
    return _timed(base, model, found, knobs.rounds)


def equal_latency(
    base: Base, model: CostModel, reference: Scaled, knobs: CompoundScalingKnobs
) -> list[Scaled]:
    """For each rule the network that takes as long as compound's, found by halving along its curve."""
    found = {"compound": reference.candidate}
    for name in RULE_NAMES[1:]:
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
    path = ctx.runs / f"compound-scaling-{knobs.network}-{base.input_size}px-{knobs.cost:g}.json"
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


def _table(cost: str, networks: list[Scaled]) -> Table:
    rows = tuple(
        (
            each.rule,
            f"{each.candidate.depth_mult:g}",
            f"{each.candidate.width_mult:g}",
            f"{each.candidate.input_size}",
            f"{each.params / 1e3:,.0f} k",
            f"{each.macs / 1e6:.1f} M",
            f"{each.seconds * 1e3:.2f} ms",
        )
        for each in networks
    )
    heads = ("rule", "depth", "width", "px", "parameters", "MACs of an image", "time of an image")
    return Table(f"At equal {cost}", heads, rows)


PUBLISHED = {
    "depth": "MobileNetV2, Table 3: 77.4 against 76.8 % accuracy, 0.6",
    "width": "MobileNetV2, Table 3: 77.4 against 76.4 % accuracy, 1.0",
    "resolution": "MobileNetV2, Table 3: 77.4 against 74.8 % accuracy, 2.6",
    "fast": "Dollar et al. find about the same accuracy, sooner",
}

STUDY = Study(
    name="compound-scaling",
    version=2,
    source="Tan and Le 2019, EfficientNet, arXiv 1905.11946, Sections 3.3 and 5.1, Table 3",
    published=(
        "MobileNetV1 at twice the width 74.2 %, at twice the resolution 72.7 %, compound 75.6 % on ImageNet",
        "MobileNetV2 at 4 times the depth 76.8 %, the width 76.4 %, the resolution 74.8 %, compound 77.4 %",
        "ResNet-50 at 4 times the depth 78.1 %, the width 77.7 %, the resolution 77.5 %, compound 78.8 %",
    ),
    clauses=tuple(
        Clause(
            name=f"{rule}-{cost.lower()}",
            says=f"At equal {cost}, a network scaled in {rule} alone errs more than one scaled in all three.",
            measure=f"test error at equal {cost}, {rule} minus compound",
            above=0.0,
            arms=difference(f"{rule}, equal {cost}", f"compound, equal {cost}"),
            published=PUBLISHED[rule] if cost == "MACs" else "",
            decides=rule in AXES,
        )
        for cost in COSTS
        for rule in RULE_NAMES[1:]
    ),
    protocol="A base network is scaled by each rule to the same exact number of multiply-adds, and to the "
    "same measured time of one image; all are trained from the same seeds, each at its own px and "
    "at its own best "
    "learning rate of one grid.",
    presets={
        "quick": CompoundScalingKnobs(
            images=1500,
            test_images=2000,
            px=12,
            epochs=3,
            seeds=3,
            cost=2.5,
            batch_size=16,
            warmup=60,
            grow=1,
        ),
        "standard": CompoundScalingKnobs(images=5000, px=14, epochs=5, warmup=200, seeds=3),
        "full": CompoundScalingKnobs(
            data="cifar10", px=24, epochs=100, batch_size=128, flip=0.5, pad=3, warmup=400, reach=20.0
        ),
    },
    run=run,
    changes="Version 1 had one learning rate for all rules.",
)
