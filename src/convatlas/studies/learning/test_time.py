"""Test time: what averaging over crops, over scales and over networks gains without any further training.

Krizhevsky et al. 2012, AlexNet (ten crops, five networks); Simonyan and Zisserman 2014, VGG, Section 4
(dense, several scales); Szegedy et al. 2014, GoogLeNet, Section 7 (144 crops, seven networks).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data.sets import Samples
from convatlas.evaluation.crops import Protocol
from convatlas.evaluation.logits import Tables, make_member
from convatlas.models.network import check_count
from convatlas.predict.predictor import Predictor
from convatlas.studies.arms import Arm, compare, incompetent, train_arm
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.trainings import Trained

NOMINAL_PX = 224
"""Px of the crops for which the scales are given."""


TWIN_SEED = 200_000
"""First seed of the further networks of an ensemble."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestTimeKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        members: networks of an ensemble; each seed trains as many.
        blocks: residual blocks in each of three stages; 6 x that + 2 layers.
        scales: px of the images' short side for crops of 224 px, lowest, middle and highest; training
            draws sizes from lowest to highest, tests at one scale use the middle one.
    """

    __test__ = False  # Not a class of tests, whatever pytest makes of its name.

    members: int = 3
    blocks: int = 1
    scales: tuple[int, int, int] = (256, 288, 320)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a value is out of its range.
        """
        super().__post_init__()
        check_count("members", self.members, least=2)
        check_count("blocks", self.blocks, least=1)
        if len(self.scales) != 3 or not NOMINAL_PX < self.scales[0] < self.scales[1] < self.scales[2]:
            raise ValueError(
                f"`scales`={list(self.scales)}; expected three that rise from above {NOMINAL_PX} px, such as "
                "[256, 288, 320]"
            )


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
    shape = ctx.source.image_size
    if shape is None or shape[1] != shape[2]:
        raise ValueError(f"`data`={knobs.data!r}; expected square images of one size")
    low, _, high = knobs.scales
    jitter = {"flip": knobs.flip, "scale_jitter": {"low": low, "high": high}}
    arm = Arm(
        network="resnet20_cifar",
        model={"blocks_per_stage": knobs.blocks},
        settings={"augment": jitter},
    )
    compared = compare(ctx, {"network": arm})
    shown = protocols(shape[1], knobs.scales)
    wrong: dict[tuple[str, int], list[NDArray[np.float64]]] = {
        (name, count): [] for name in shown for count in (1, knobs.members)
    }
    for first in ctx.seeds:
        further = [
            train_arm(
                ctx, "network", arm, compared.tuned["network"].best, TWIN_SEED + first * knobs.members + i
            )
            for i in range(1, knobs.members)
        ]
        chosen = compared.nets("network")[first - ctx.knobs.first_seed]
        nets = [chosen, *(one for one in further if one is not None)]
        for name, protocol in shown.items():
            logits = [score(ctx, trained, protocol) for trained in nets]
            alone = [is_wrong(ctx.source.test, [views]) for views in logits]
            wrong[name, 1].append(np.mean(alone, axis=0))
            wrong[name, knobs.members].append(is_wrong(ctx.source.test, logits))
    tables = {key: np.stack(rows) for key, rows in wrong.items()}
    shown_arms = {"one network, 1 crop": tables["1 crop", 1], "one network, dense": tables["dense", 1]}
    return Outcome(
        compared=compared,
        samples=samples(tables, knobs.members),
        objections=tuple(incompetent(shown_arms, knobs.reach)),
        tables=(_table(tables),),
        reading="Each prediction pays for it: ten crops cost ten times one, and networks multiply that.",
    )


def samples(
    tables: Mapping[tuple[str, int], NDArray[np.float64]], members: int
) -> dict[str, NDArray[np.float64]]:
    """The gain of each average in points, by clause: (S, I)."""

    def gain(less: tuple[str, int], more: tuple[str, int]) -> NDArray[np.float64]:
        return 100.0 * (tables[less] - tables[more])

    return {
        "crops": gain(("1 crop", 1), ("10 crops", 1)),
        "scales": gain(("dense", 1), ("dense, 3 scales", 1)),
        "networks": gain(("1 crop", 1), ("1 crop", members)),
        "all": gain(("1 crop", 1), ("10 crops", members)),
    }


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


def is_wrong(images: Samples, logits: Sequence[Sequence[Tensor]]) -> NDArray[np.float64]:
    """Wrong answers (N,), by the probabilities averaged over the views and then over the networks.

    Args:
        images: N of them.
        logits: of each network, for each image (V, K).
    """
    tables = Tables(images.labels, "probabilities")
    for row, views in enumerate(zip(*logits, strict=True)):
        tables.fill(row, views)
    return (tables.predicted != tables.labels).double().numpy()


def _table(tables: Mapping[tuple[str, int], NDArray[np.float64]]) -> Table:
    rows = tuple(
        (
            str(count),
            name,
            f"{100.0 * table.mean():.2f} %",
            ", ".join(f"{100.0 * row.mean():.2f}" for row in table),
        )
        for (name, count), table in tables.items()
    )
    return Table("Each way of testing", ("networks", "protocol", "test error", "each seed"), rows)


STUDY = Study(
    name="test-time",
    version=2,
    source="Krizhevsky et al. 2012, AlexNet, Table 2; Simonyan and Zisserman 2014, VGG, Tables 3 and 4; "
    "Szegedy et al. 2014, GoogLeNet, Table 3",
    published=(
        "AlexNet, ImageNet top-1: 1 network 40.7, 5 networks 38.1 %",
        "GoogLeNet, ImageNet top-5: 1 crop 10.07, 10 crops 9.15, 144 crops 7.89; 7 networks with 144: 6.67 %",
        "VGG-16, ImageNet top-1, dense: single scale 25.6, three scales 24.8 %",
    ),
    clauses=(
        Clause(
            name="crops",
            says="Ten crops err less than one.",
            measure="test error of one network, 1 crop minus 10 crops",
            above=0.0,
            published="GoogLeNet, top-5: 10.07 - 9.15 = 0.92",
        ),
        Clause(
            name="scales",
            says="Three scales err less than one, densely.",
            measure="test error of one network, dense at one scale minus three",
            above=0.0,
            published="VGG-16: 25.6 - 24.8 = 0.8",
        ),
        Clause(
            name="networks",
            says="Several networks err less than one.",
            measure="test error with 1 crop, one network minus several",
            above=0.0,
            published="AlexNet, 5 networks: 40.7 - 38.1 = 2.6",
        ),
        Clause(
            name="all",
            says="All together err least.",
            measure="test error, one network with 1 crop minus several with 10",
            above=0.0,
            published="GoogLeNet, 7 networks and 144 crops, top-5: 10.07 - 6.67 = 3.40",
            decides=False,
        ),
    ),
    protocol="For each seed an ensemble of small residual networks is trained on random crops of random "
    "scale, at the best learning rate of a grid. Each network, and all together, are tested by the papers' "
    "protocols on the same images: the middle crop, ten crops, the classifier sliding over the "
    "whole image, and "
    "that at three scales; the last two with mirror images.",
    presets={
        "quick": TestTimeKnobs(
            images=2000, test_images=1000, px=16, epochs=5, seeds=3, batch_size=16, warmup=60
        ),
        "standard": TestTimeKnobs(images=6000, test_images=3000, px=28, epochs=6, warmup=200),
        "full": TestTimeKnobs(
            data="cifar10",
            epochs=164,
            schedule="recipe",
            blocks=3,
            members=5,
            batch_size=128,
            flip=0.5,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 judged images of 16 px, on which dense evaluation was worse than one crop.",
)
