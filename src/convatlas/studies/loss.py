"""Softmax against the multi-class support vector machine's hinge: two losses on the same logits.

CS231n, "Linear classification"; Weston and Watkins 1999, "Support vector machines for multi-class pattern
recognition"; Tang 2013, "Deep Learning using Linear Support Vector Machines".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.metrics.calibration import Calibration, calibrate
from convatlas.models.network import check_count
from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect, Fact
from convatlas.training.losses import hinge_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext, Trained

LOSSES = ("softmax", "hinge")

EXAMPLE = ((3.2, 5.1, -1.7), (1.3, 4.9, 2.0), (2.2, 2.5, -3.1))
"""CS231n's logits for a cat, a car and a frog (classes 0, 1 and 2)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        blocks: residual blocks in each of three stages; 6 x that + 2 layers.
        recipe: how both are trained, but for the loss.
        batch_size: images of a step.
        lr: largest learning rate.
        pad: px by which augmentation shifts at most; 4 for images of 32 px.
        margin: largest difference of test errors that counts as none, in points.
        seeds: how many seeds.
    """

    blocks: int = 1
    recipe: str = "resnet_cifar"
    batch_size: int = 128
    lr: float = 0.05
    pad: int = 4
    margin: float = 2.0
    seeds: int = 5

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        check_count("blocks", self.blocks, least=1)
        check_count("batch_size", self.batch_size, least=1)
        check_count("pad", self.pad, least=1)
        if not 0.0 < self.margin < 100.0:
            raise ValueError(f"`margin`={self.margin}; expected points above 0, such as 2.0")


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one trained network.

    Attributes:
        error: wrong test images, in %.
        settled: training images whose loss, and so whose gradient, is exactly 0, in %.
        calibration: of the test predictions, with the softmax of the logits as probabilities.
    """

    error: float
    settled: float
    calibration: Calibration


Results = dict[str, list[Result]]
"""By loss: one for each seed."""


def run(ctx: StudyContext[LossKnobs]) -> Outcome:
    """Computes the losses of known logits, then trains with each loss for each seed."""
    results: Results = {loss: [_train(ctx, loss, seed) for seed in ctx.seeds] for loss in LOSSES}
    return Outcome(
        findings=(*compute_facts(), *find(results, ctx.knobs.margin)),
        tables=(_table(results),),
        figures={"loss.png": render(functools.partial(draw, results))},
        reading=_reading(results),
    )


def compute_facts() -> tuple[Fact, ...]:
    """Both losses on CS231n's example, and on logits that are all alike."""
    logits, labels = torch.tensor(EXAMPLE, dtype=torch.float64), torch.arange(3)
    cat, car, frog = hinge_losses(logits, labels).tolist()
    alike = torch.zeros(1, 10, dtype=torch.float64)
    half = 0.005  # of the last digit that is printed
    printed = (
        ("hinge of the cat's logits", cat, 2.9),
        ("hinge of the car's logits", car, 0.0),
        ("hinge of the frog's logits", frog, 12.9),
        ("hinge, mean of the three", (cat + car + frog) / 3.0, 5.27),
        ("softmax loss of the cat's logits", float(F.cross_entropy(logits[:1], labels[:1])), 2.04),
        ("hinge of ten equal logits: K - 1", float(hinge_losses(alike, labels[:1])), 9.0),
        ("softmax loss of ten equal logits: ln K", float(F.cross_entropy(alike, labels[:1])), 2.30),
    )
    return tuple(
        Fact(name=name, value=value, claimed=claimed, tolerance=half / claimed if claimed else 0.0)
        for name, value, claimed in printed
    )


def find(results: Results, margin: float) -> tuple[Effect, ...]:
    """The effects: errors no further apart than `margin` points, and images that the hinge leaves alone."""
    pairs = list(zip(results["softmax"], results["hinge"], strict=True))
    worse = tuple(hinge.error - softmax.error for softmax, hinge in pairs)
    published = "CS231n: very small; Tang 2013: the (squared) hinge is better"
    return (
        Effect(
            name="test error, hinge minus softmax",
            values=worse,
            unit="points",
            least=-margin,
            published=published,
        ),
        Effect(
            name="test error, softmax minus hinge",
            values=tuple(-value for value in worse),
            unit="points",
            least=-margin,
            published=published,
        ),
        Effect(
            name="training images without any gradient, hinge minus softmax",
            values=tuple(hinge.settled - softmax.settled for softmax, hinge in pairs),
            unit="% of the images",
            published="softmax: none, ever",
        ),
        Effect(
            name="calibration error, softmax of the hinge's logits minus that of softmax's own",
            values=tuple(
                100.0 * (hinge.calibration.error - softmax.calibration.error) for softmax, hinge in pairs
            ),
            unit="points",
            published="CS231n: the hinge's logits are no probabilities",
            decides=False,
        ),
    )


def _train(ctx: StudyContext[LossKnobs], loss: str, seed: int) -> Result:
    knobs = ctx.knobs
    trained = ctx.train(
        "resnet20_cifar",
        seed=seed,
        model={"blocks_per_stage": knobs.blocks},
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        batch_size=knobs.batch_size,
        lr=knobs.lr,
        augment={"flip": 0.5, "pad_crop": {"pad": knobs.pad}},
        loss=loss,
    )
    logits, labels = score(ctx, trained, "train")
    losses = hinge_losses(logits, labels) if loss == "hinge" else softmax_losses(logits, labels)
    tested, right = score(ctx, trained, "test")
    best = tested.softmax(dim=1).max(dim=1)
    return Result(
        error=trained.test_error,
        settled=100.0 * float((losses == 0.0).double().mean()),
        calibration=calibrate(best.values.numpy(), (best.indices == right).numpy()),
    )


@torch.inference_mode()
def score(
    ctx: StudyContext[LossKnobs], trained: Trained, part: Literal["train", "test"]
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) of all images of a part, in float64, and their labels (N,)."""
    samples = ctx.source.train if part == "train" else ctx.source.test
    found: list[Tensor] = []
    for begin in range(0, len(samples), 256):
        rows = range(begin, min(begin + 256, len(samples)))
        images = torch.stack([samples.image(row) for row in rows])
        found.append(trained.net(trained.transform.normalise(images)).double())
    return torch.cat(found), samples.labels


def softmax_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image, (B, K) and (B,) to (B,), that does not round a small loss to 0.

    It is log(1 + the sum over the wrong classes j of exp(s_j - s_y)).
    """
    over = (logits - logits.gather(1, labels[:, None])).scatter(1, labels[:, None], -math.inf)
    return F.softplus(over.logsumexp(dim=1))


def _table(results: Results) -> Table:
    rows: list[tuple[str, ...]] = []
    for loss, found in results.items():
        errors = [result.error for result in found]
        cells = [loss, f"{statistics.fmean(errors):.2f} %", ", ".join(f"{error:.2f}" for error in errors)]
        cells.append(f"{statistics.fmean(result.settled for result in found):.1f} %")
        cells.append(f"{100.0 * statistics.fmean(result.calibration.error for result in found):.1f} points")
        rows.append(tuple(cells))
    heads = ("loss", "test error", "each seed", "training images without gradient", "calibration error")
    return Table("Each loss", heads, tuple(rows))


def _reading(results: Results) -> str:
    softmax, hinge = (
        statistics.fmean(result.error for result in results[loss]) for loss in ("softmax", "hinge")
    )
    settled = statistics.fmean(result.settled for result in results["hinge"])
    return (
        f"Trained alike, the networks err on {softmax:.1f} % of the test images with softmax and on "
        f"{hinge:.1f} % with the hinge. At the end, {settled:.0f} % of the training images lie beyond the "
        "hinge's margin and no longer move a weight; with softmax every image still pulls. In the image, a "
        "bar below the diagonal promises more than it keeps, one above it less."
    )


def draw(results: Results, figure: Figure) -> None:
    """Test errors with every seed as a dot, and how often predictions of each confidence are right."""
    errors, *reliability = figure.subplots(1, 3, width_ratios=(1.0, 1.2, 1.2))
    for place, (loss, found) in enumerate(results.items()):
        values = [result.error for result in found]
        errors.scatter([place] * len(values), values, color=f"C{place}")
        errors.hlines(statistics.fmean(values), place - 0.25, place + 0.25, color=f"C{place}")
        _draw_reliability(reliability[place], loss, [result.calibration for result in found], f"C{place}")
    for pair in zip(*results.values(), strict=True):
        errors.plot([0, 1], [result.error for result in pair], color="0.8", lw=0.8, zorder=0)
    errors.set_xticks([0, 1], list(results))
    errors.set(xlim=(-0.5, 1.5), ylabel="test error (%)", title="test error (lines: same seed)")


def _draw_reliability(axes: Axes, loss: str, found: list[Calibration], colour: str) -> None:
    bins = len(found[0].bins)
    for index in range(bins):
        filled = [entry.bins[index] for entry in found if entry.bins[index].count]
        count = sum(entry.count for entry in filled)
        if count:
            height = sum((entry.accuracy or 0.0) * entry.count for entry in filled) / count
            axes.bar((index + 0.5) / bins, height, width=0.9 / bins, color=colour, alpha=0.7)
    axes.plot([0.0, 1.0], [0.0, 1.0], "k--", lw=1.0)
    mean = 100.0 * statistics.fmean(entry.error for entry in found)
    axes.set(
        xlim=(0.0, 1.0), ylim=(0.0, 1.0), xlabel="softmax of the best score", ylabel="share that is right"
    )
    axes.set_title(f"{loss}: off by {mean:.1f} points")


STUDY = Study(
    name="loss",
    source="CS231n, Linear classification (Softmax vs. SVM); Tang 2013, arXiv 1306.0239",
    published=(
        "CS231n: the difference between SVM and softmax is usually very small; the SVM does not care about "
        "logits once the margins are satisfied; hinge losses of the example 2.9, 0, 12.9, mean 5.27",
        "Tang 2013: a small but consistent advantage of (squared) hinge losses over softmax",
    ),
    protocol="The same residual network is trained by the same recipe with both losses from the same seeds. "
    "The learning rate is one that both bear: at 0.05 in place of 0.02 (and 4 epochs in place of 6), the "
    "hinge, whose gradients are larger, erred 2.4 points more. At the end the loss of each training image is "
    "computed in double precision without augmentation. The predictions for the test images are compared "
    "with the softmax of their logits.",
    refuted_by="Test errors that differ by more than `margin` points; a hinge that leaves no image alone; or "
    "losses of the example that differ from those printed.",
    presets={
        "quick": LossKnobs(images=3000, test_images=2000, px=14, epochs=6, batch_size=32, lr=0.02, pad=1),
        "standard": LossKnobs(epochs=6),
        "full": LossKnobs(data="cifar10", epochs=164, blocks=3),
    },
    run=run,
)
