"""What to do when the loss, or a gradient, is infinite or not a number: stop, go back, or skip the step."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import torch

from convatlas.files import write_json
from convatlas.runs import checkpoint as files
from convatlas.training.distributed import Ranks

if TYPE_CHECKING:
    from convatlas.training.trainer import Training

# After so many unusable steps in a row, or so many times back, training gives up.
MOST_SKIPPED, MOST_TIMES_BACK = 10, 8
SAID = {"gradient": "a gradient is no finite number", "weights": "a weight is no finite number"}


class TrainingError(ValueError):
    """Training cannot go on; the message says why and what to change."""


class NotFiniteError(Exception):
    """A step is unusable; the message says what was found, and where."""


def skip(training: Training, loss: str) -> None:
    """Notes an unusable step, which will have changed nothing.

    Args:
        training: that took the step.
        loss: as it was found.

    Raises:
        NotFiniteError: such steps are not to be skipped.
        TrainingError: too many in a row were of no use.
    """
    found = write_down(training, f"loss {loss}" if loss in ("nan", "inf", "-inf") else "gradient")
    if training.setup.spec.on_nan != "skip":
        raise NotFiniteError(found)
    training.state.skipped += 1
    if training.state.skipped > MOST_SKIPPED:
        raise TrainingError(f"{found}, and so it was in the {MOST_SKIPPED} steps before; {advice(training)}")
    training.note(f"{found}: the step is skipped")
    training.learner.optimiser.zero_grad()


def go_back(training: Training, found: str) -> None:
    """Returns to the last checkpoint, and goes on from there with half the learning rate.

    Raises:
        TrainingError: that is not wanted, or has been done often enough.
    """
    state = training.state
    if training.setup.spec.on_nan == "stop":
        raise TrainingError(f"{found}; {advice(training)}, or `on_nan` 'rollback' or 'skip'")
    if state.times_back >= MOST_TIMES_BACK:
        raise TrainingError(f"{found}, after going back {MOST_TIMES_BACK} times; {advice(training)}")
    factor, times = state.lr_factor / 2.0, state.times_back + 1
    newest = None
    if training.ranks.is_first:
        newest = files.newest_checkpoint(training.checkpoints, training.note)
    training.learner.optimiser.zero_grad()
    training.restore(newest)
    training.state.lr_factor, training.state.times_back = factor, times
    if training.metrics_logger is not None:
        training.metrics_logger.go_back(training.state.step)
    training.note(f"{found}: back to step {training.state.step}, on with {factor:g} of the learning rate")


def write_down(training: Training, what: str, step: int | None = None) -> str:
    """Writes which samples were seen since the last look into the run folder.

    Args:
        training: that took the step.
        what: is no finite number: "loss nan", "gradient" or "weights".
        step: counted from 0; None for the one that is under way.

    Returns:
        What was found, and where, for a message.
    """
    step, per_epoch = training.state.step if step is None else step, training.batch_order.steps_per_epoch
    first = step
    while first % per_epoch and not training.syncs_at(first - 1):
        first -= 1
    epoch, source = step // per_epoch, training.setup.source.train
    path = training.folder / f"not-finite-step-{step + 1}.json"
    if training.ranks.is_first:
        everybody = Ranks(torch.device("cpu"))
        steps = training.batch_order.batches(epoch, everybody, first % per_epoch)[: step - first + 1]
        samples = {
            str(number + 1): [int(sample) for part in parts for sample in part]
            for number, parts in enumerate(steps, first)
        }
        names = {str(s): source.name(s) for seen in samples.values() for s in seen}
        lr = training.recipe.lr_at(step, training.batch_order.num_steps) * training.state.lr_factor
        facts = {"step": step + 1, "epoch": epoch + 1, "found": what, "lr": lr}
        write_json(path, facts | {"samples_by_step": samples, "names": names})
    said = f"the loss is {what[5:]}" if what.startswith("loss ") else SAID[what]
    return f"{said} at step {step + 1} (epoch {epoch + 1}; its images are listed in {path})"


def advice(training: Training) -> str:
    """What a person may change."""
    return f"a smaller `lr` than {training.recipe.lr:g} may help"


@contextlib.contextmanager
def buffers_kept(training: Training) -> Generator[None]:
    """Where unusable steps are skipped: gives back the statistics of normalisation that one has spoilt."""
    if training.setup.spec.on_nan != "skip":
        yield
        return
    buffers = list(training.learner.net.buffers())
    before, skipped = [buffer.clone() for buffer in buffers], training.state.skipped
    yield
    if training.state.skipped > skipped:
        with torch.no_grad():
            for own, kept in zip(buffers, before, strict=True):
                own.copy_(kept)
