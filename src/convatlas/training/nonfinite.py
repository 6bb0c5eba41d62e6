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
    if training.job.wish.on_nan != "skip":
        raise NotFiniteError(found)
    training.standing.skipped += 1
    if training.standing.skipped > MOST_SKIPPED:
        raise TrainingError(f"{found}, and so it was in the {MOST_SKIPPED} steps before; {advice(training)}")
    training.note(f"{found}: the step is skipped")
    training.learner.optimiser.zero_grad()


def go_back(training: Training, found: str) -> None:
    """Returns to the last checkpoint, and goes on from there with half the learning rate.

    Raises:
        TrainingError: that is not wanted, or has been done often enough.
    """
    standing = training.standing
    if training.job.wish.on_nan == "stop":
        raise TrainingError(f"{found}; {advice(training)}, or `on_nan` 'rollback' or 'skip'")
    if standing.times_back >= MOST_TIMES_BACK:
        raise TrainingError(f"{found}, after going back {MOST_TIMES_BACK} times; {advice(training)}")
    factor, times = standing.lr_factor / 2.0, standing.times_back + 1
    newest = None
    if training.ranks.is_first:
        newest = files.newest_checkpoint(training.checkpoints, training.note)
    training.learner.optimiser.zero_grad()
    training.restore(newest)
    training.standing.lr_factor, training.standing.times_back = factor, times
    if training.journal is not None:
        training.journal.go_back(training.standing.step)
    training.note(f"{found}: back to step {training.standing.step}, on with {factor:g} of the learning rate")


def write_down(training: Training, what: str, step: int | None = None) -> str:
    """Writes which samples were seen since the last look into the run folder.

    Args:
        training: that took the step.
        what: is no finite number: "loss nan", "gradient" or "weights".
        step: counted from 0; None for the one that is under way.

    Returns:
        What was found, and where, for a message.
    """
    step, per_epoch = training.standing.step if step is None else step, training.plan.steps_per_epoch
    first = step
    while first % per_epoch and not training.is_look(first - 1):
        first -= 1
    epoch, source = step // per_epoch, training.job.source.train
    path = training.folder / f"not-finite-step-{step + 1}.json"
    if training.ranks.is_first:
        everybody = Ranks(torch.device("cpu"))
        steps = training.plan.batches(epoch, everybody, first % per_epoch)[: step - first + 1]
        samples = {
            str(number + 1): [int(sample) for part in parts for sample in part]
            for number, parts in enumerate(steps, first)
        }
        names = {str(s): source.name(s) for seen in samples.values() for s in seen}
        lr = training.recipe.lr_at(step, training.plan.num_steps) * training.standing.lr_factor
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
    if training.job.wish.on_nan != "skip":
        yield
        return
    buffers = list(training.learner.net.buffers())
    before, skipped = [buffer.clone() for buffer in buffers], training.standing.skipped
    yield
    if training.standing.skipped > skipped:
        with torch.no_grad():
            for own, kept in zip(buffers, before, strict=True):
                own.copy_(kept)
