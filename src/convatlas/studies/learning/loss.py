"""Softmax against the multi-class support vector machine's hinge: two losses on the same logits.

CS231n, "Linear classification"; Weston and Watkins 1999, "Support vector machines for multi-class pattern
recognition"; Tang 2013, "Deep Learning using Linear Support Vector Machines".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.metrics.calibration import calibrate
from convatlas.models.network import check_count
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.trainings import Trained
from convatlas.studies.verdict import Fact
from convatlas.training.losses import hinge_losses

LOSSES = ("softmax", "hinge")


EXAMPLE = ((3.2, 5.1, -1.7), (1.3, 4.9, 2.0), (2.2, 2.5, -3.1))
"""CS231n's scores for a cat, a car and a frog (classes 0, 1 and 2)."""


MARGIN = 2.0
"""Largest difference of test errors that counts as none, in points."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        blocks: residual blocks in each of three stages; 6 x that + 2 layers.
    """

    blocks: int = 1

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count is out of its range.
        """
        super().__post_init__()
        check_count("blocks", self.blocks, least=1)


def run(ctx: StudyContext[LossKnobs]) -> Outcome:
    """Computes the losses of known logits, then trains with each loss for each seed."""
    model = {"blocks_per_stage": ctx.knobs.blocks}
    arms = {loss: Arm(network="resnet20_cifar", model=model, settings={"loss": loss}) for loss in LOSSES}
    compared = compare(ctx, arms)
    results = {loss: [examine(ctx, one, loss) for one in compared.nets(loss)] for loss in LOSSES}
    pairs = list(zip(results["softmax"], results["hinge"], strict=True))
    return Outcome(
        compared=compared,
        samples={
            "settled": [hinge[0] - softmax[0] for softmax, hinge in pairs],
            "calibration": [hinge[1] - softmax[1] for softmax, hinge in pairs],
        },
        facts=compute_facts(),
        reading="Images beyond the hinge's margin no longer move a weight; with softmax every image "
        "still pulls.",
    )


def compute_facts() -> tuple[Fact, ...]:
    """Both losses on CS231n's example, and on scores that are all alike."""
    scores, labels = torch.tensor(EXAMPLE, dtype=torch.float64), torch.arange(3)
    cat, car, frog = hinge_losses(scores, labels).tolist()
    alike = torch.zeros(1, 10, dtype=torch.float64)
    half = 0.005  # of the last digit that is printed
    printed = (
        ("hinge of the cat's scores", cat, 2.9),
        ("hinge of the car's scores", car, 0.0),
        ("hinge of the frog's scores", frog, 12.9),
        ("hinge, mean of the three", (cat + car + frog) / 3.0, 5.27),
        ("softmax loss of the cat's scores", float(F.cross_entropy(scores[:1], labels[:1])), 2.04),
        ("hinge of ten equal scores: K - 1", float(hinge_losses(alike, labels[:1])), 9.0),
        ("softmax loss of ten equal scores: ln K", float(F.cross_entropy(alike, labels[:1])), 2.30),
    )
    return tuple(
        Fact(name=name, value=value, claimed=claimed, tolerance=half / claimed if claimed else 0.0)
        for name, value, claimed in printed
    )


def examine(ctx: StudyContext[LossKnobs], trained: Trained, loss: str) -> tuple[float, float]:
    """Of a network: training images whose loss is exactly 0, in %, and its calibration error in points."""
    logits, labels = answers(ctx, trained, "train")
    losses = hinge_losses(logits, labels) if loss == "hinge" else softmax_losses(logits, labels)
    tested, right = answers(ctx, trained, "test")
    best = tested.softmax(dim=1).max(dim=1)
    found = calibrate(best.values.numpy(), (best.indices == right).numpy())
    return 100.0 * float((losses == 0.0).double().mean()), 100.0 * found.error


@torch.inference_mode()
def answers(
    ctx: StudyContext[LossKnobs], trained: Trained, split: Literal["train", "test"]
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) of all images of a split, in float64, and their labels (N,)."""
    samples = ctx.source.train if split == "train" else ctx.source.test
    found: list[Tensor] = []
    for begin in range(0, len(samples), 256):
        rows = range(begin, min(begin + 256, len(samples)))
        images = torch.stack([samples.image(row) for row in rows])
        found.append(trained.net(trained.transform.normalise(images)).double())
    return torch.cat(found), samples.labels


def softmax_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, (B, K) and (B,) to (B,), that does not round a small loss to 0.

    It is log(1 + the sum over the wrong classes j of exp(s_j - s_y)).
    """
    over = (scores - scores.gather(1, labels[:, None])).scatter(1, labels[:, None], -math.inf)
    return F.softplus(over.logsumexp(dim=1))


STUDY = Study(
    name="loss",
    version=2,
    source="CS231n, Linear classification (Softmax vs. SVM); Tang 2013, arXiv 1306.0239",
    published=(
        "CS231n: the difference between SVM and softmax is usually very small; the SVM does not care about "
        "scores once the margins are satisfied; hinge losses of the example 2.9, 0, 12.9, mean 5.27",
        "Tang 2013: a small but consistent advantage of (squared) hinge losses over softmax",
    ),
    clauses=(
        Clause(
            name="alike",
            says=f"The test errors differ by less than {MARGIN:g} points.",
            measure="test error, hinge minus softmax",
            within=MARGIN,
            arms=difference("hinge", "softmax"),
            published="CS231n: very small; Tang 2013: the (squared) hinge is better",
        ),
        Clause(
            name="settled",
            says="The hinge leaves images beyond its margin without any gradient, softmax none.",
            measure="training images without any gradient, hinge minus softmax",
            unit="% of the images",
            above=0.0,
            published="softmax: none, ever",
        ),
        Clause(
            name="calibration",
            says="The hinge's logits are no log-probabilities.",
            measure="calibration error, softmax of the hinge's logits minus that of softmax's own",
            above=0.0,
            published="CS231n: the hinge's scores are no probabilities",
            decides=False,
        ),
    ),
    protocol="The same residual network is trained by the same recipe with both losses from the "
    "same seeds, each "
    "at its own best learning rate of one grid: the hinge's gradients are larger. At the end the "
    "loss of each "
    "training image is computed in double precision without augmentation.",
    presets={
        "quick": LossKnobs(
            images=2000,
            test_images=2000,
            px=14,
            epochs=5,
            seeds=3,
            batch_size=16,
            warmup=60,
            grid=(0.006, 0.02, 0.06, 0.2),
        ),
        "standard": LossKnobs(images=10000, px=14, epochs=8, warmup=300, grid=(0.006, 0.02, 0.06, 0.2)),
        "full": LossKnobs(
            data="cifar10",
            epochs=164,
            schedule="recipe",
            blocks=3,
            batch_size=128,
            flip=0.5,
            pad=4,
            grid=(0.01, 0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 had one learning rate, chosen so that both losses bore it after another had "
    "been tried.",
)
