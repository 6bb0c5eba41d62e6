"""Where a training stands, beside its tensors: all that is not a function of the step."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class TrainState:
    """A handful of numbers, which a checkpoint holds beside the tensors.

    Attributes:
        step: steps done.
        loss_sum: of the images of this epoch so far.
        images: how many these are.
        right: how many of them were classified correctly; 0 where labels are mixed.
        seconds: trained so far, by all processes that worked on the run one after the other.
        lr_factor: what the learning rate is multiplied with, after going back.
        times_back: how often training went back.
        skipped: unusable steps in a row.
        best_accuracy: the highest accuracy of an epoch, on the validation images where there are some, else
            on the test images.
        best_epoch: when that was, from 1.
        best_loss: the lowest loss of an epoch on the validation images.
        kept_epoch: when that was; 0 for the classifier that training began with.
        souped: epochs whose weights are in the mean.
        best_saved: the step of the best checkpoint.
        best_saved_accuracy: its test accuracy.
        over: whether the last epoch is done.
    """

    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    right: int = 0
    seconds: float = 0.0
    lr_factor: float = 1.0
    times_back: int = 0
    skipped: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    best_loss: float | None = None
    kept_epoch: int = 0
    souped: int = 0
    best_saved: int | None = None
    best_saved_accuracy: float = -1.0
    over: bool = False


@dataclasses.dataclass(frozen=True)
class StepSync:
    """What all processes learn together after some step.

    Attributes:
        loss: sum over the images since the last look.
        images: how many these are.
        usable: whether loss and gradients are finite.
        stop: whether one of the processes was asked to stop.
        save: whether a checkpoint is due.
    """

    loss: float
    images: int
    usable: bool
    stop: bool
    save: bool
