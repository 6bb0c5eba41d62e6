"""A learning rate by a range test: it rises step by step, and the loss says where it is too large."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convatlas.data.batches import Batch, read_batches
from convatlas.files import write_atomic, write_json
from convatlas.training.head_probe import probed_layer
from convatlas.training.setup import TrainSetup
from convatlas.training.start import fit_classifier, make_learner
from convatlas.training.train_step import Learner

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 60
LEAST, MOST = 1e-6, 1.0
"""Rates of the first step and of the last, that of SGD ten times as large."""
SMOOTHING = 0.9
DIVERGED = 3.0
"""So many times the least smoothed loss ends the test."""
SAFETY = 10.0
"""How far below the rate of the least loss the one that is taken lies."""
CURVE, FIGURE = "lr-range.json", "lr-range.png"


@dataclasses.dataclass(frozen=True)
class LrCurve:
    """What a range test found.

    Attributes:
        rates: learning rate of each step, rising.
        losses: smoothed loss before each step.
        lr: that is taken.
        reason: how it was found, in words.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    lr: float
    reason: str


def with_found_lr(setup: TrainSetup, note: Callable[[str], None]) -> tuple[TrainSetup, LrCurve]:
    """A training with the learning rate that a range test finds; its network is as it was.

    Args:
        setup: the training.
        note: is told the rate, and why.

    Raises:
        ValueError: the recipe has no learning rate to find.
    """
    recipe = setup.spec.recipe
    if recipe.optimizer == "lbfgs":
        raise ValueError("`lr`='auto': a probe has no learning rate")
    curve = range_test(setup)
    note(f"learning rate {curve.lr:.2g}: {curve.reason}")
    ratio = {} if recipe.head_lr is None else {"head_lr": recipe.head_lr * curve.lr / recipe.lr}
    found = dataclasses.replace(recipe, lr=curve.lr, **ratio)
    return dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, recipe=found)), curve


def range_test(setup: TrainSetup) -> LrCurve:
    """Trains a copy of the network for 60 steps, each with a larger rate than the one before.

    Every process does the same, on batches of its own, and the first one's answer counts.

    Args:
        setup: the training.

    Source: Smith 2015, "Cyclical Learning Rates for Training Neural Networks", Section 3.3.
    """
    least, most = (end * (10.0 if setup.spec.recipe.optimizer == "sgd" else 1.0) for end in (LEAST, MOST))
    rates = np.geomspace(least, most, STEPS).tolist()
    learner = _copied_learner(setup)
    learner.train(1.0)
    smoothed: list[float] = []
    average = 0.0
    for number, (lr, batch) in enumerate(zip(rates, _batches(setup), strict=False)):
        size = len(batch.labels)
        if size == 0:
            continue
        loss = (
            float(learner.gradients([batch], of=size * setup.ranks.world_size, epoch=0, step=number)[0])
            / size
        )
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss
        value = average / (1.0 - SMOOTHING ** (len(smoothed) + 1))
        if not math.isfinite(value) or (len(smoothed) > 10 and value > DIVERGED * min(smoothed)):
            break
        smoothed.append(value)
        learner.update(lr, number)
    curve = pick_lr(rates[: len(smoothed)], smoothed)
    return setup.ranks.broadcast_object(curve)


def pick_lr(rates: Sequence[float], losses: Sequence[float]) -> LrCurve:
    """The rate that a curve of a range test speaks for.

    It is a tenth of that at the least smoothed loss, and no more than that where the loss falls fastest.

    Args:
        rates: rising.
        losses: smoothed loss before the step of each.

    Raises:
        ValueError: there are fewer than three steps.
    """
    if len(losses) < 3:
        raise ValueError("`lr`='auto': the loss was infinite or not a number at the smallest rates; set `lr`")
    best = int(np.argmin(losses))
    slopes = np.gradient(np.asarray(losses), np.log(np.asarray(rates)))
    steepest = int(np.argmin(slopes[: best + 1]))
    lr = min(rates[best] / SAFETY, rates[steepest]) if best else rates[0]
    reason = f"the loss was least at {rates[best]:.2g} and fell fastest at {rates[steepest]:.2g}"
    return LrCurve(tuple(rates), tuple(losses), float(f"{lr:.2g}"), reason)


def write_lr_curve(folder: Path, curve: LrCurve) -> None:
    """Writes a range test into a run folder: `lr-range.json` and `lr-range.png`."""
    write_json(folder / CURVE, dataclasses.asdict(curve))
    write_atomic(folder / FIGURE, draw_lr_curve(curve))


def draw_lr_curve(curve: LrCurve) -> bytes:
    """Draws the loss against the learning rate, and the rate that was taken, as a PNG."""
    from convatlas.plots.style import render

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(curve.rates, curve.losses, color="C0")
        axes.axvline(curve.lr, color="C1", linestyle="--", label=f"taken: {curve.lr:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss")
        axes.legend()

    return render(draw, width=5.6, height=3.6)


def _copied_learner(setup: TrainSetup) -> Learner:
    recipe = dataclasses.replace(setup.spec.recipe, ema_decay=None, soup=0, validation=0.0)
    learner = make_learner(setup, copy.deepcopy(setup.net), recipe)
    layer = probed_layer(learner.net) if recipe.head_start == "probe" else None
    if layer is not None:
        fit_classifier(setup, learner.net, recipe, layer)
    return learner


def _batches(setup: TrainSetup) -> Iterator[Batch]:
    for epoch in itertools.count():
        parts = [part for step in setup.batch_order.batches(epoch, setup.ranks) for part in step]
        plan = [(part, setup.px_at(0)) for part in parts]
        bad = setup.spec.on_bad_image
        yield from read_batches(setup.source.train, plan, setup.train_fit(epoch), workers=0, on_bad_image=bad)
