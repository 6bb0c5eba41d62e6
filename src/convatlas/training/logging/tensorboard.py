"""TensorBoard, as a callback of the training loop. Every other tracker is attached the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
"""Where in a run folder the events go."""

# TensorBoard groups its charts by what stands before the slash.
CHARTS = {
    "loss": "loss/training",
    "test_loss": "loss/test",
    "test_accuracy": "accuracy/top-1",
    "test_top5": "accuracy/top-5",
    "lr": "training/learning rate",
    "images_per_s": "training/images per second",
}


class TrackerError(ValueError):
    """A tracker cannot be used; the message says why and what to do."""


class TensorBoard:
    """Writes each line of `metrics.jsonl` as TensorBoard's events.

    When a resumed run begins at an earlier step, TensorBoard hides what was written beyond it.

    Args:
        folder: for the events; `tensorboard --logdir` of it or of any folder above shows them.

    Raises:
        TrackerError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrackerError(
                f"TensorBoard is not installed ({error}): pip install tensorboard, "
                "or '.[track]' in a checkout"
            ) from None
        self._make = SummaryWriter
        self._folder = Path(folder)
        self._writer: SummaryWriter | None = None

    def __call__(self, line: dict[str, Any]) -> None:
        """Writes the line's figures, and flushes them to disk."""
        step = int(line["step"])
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=step)
        for name, value in line.items():
            if name not in ("step", "epoch") and isinstance(value, int | float):
                self._writer.add_scalar(CHARTS.get(name, name), value, step)
        self._writer.flush()
