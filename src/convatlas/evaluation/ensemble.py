"""Weights of a run beside those it ended with: of a checkpoint, its moving average, the mean of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.data.sets import Samples
from convatlas.evaluation.crops import Protocol, Views
from convatlas.models.network import Network
from convatlas.predict.load import load_network
from convatlas.runs.checkpoint import CHECKPOINTS, Checkpoint, read_checkpoint, steps_in
from convatlas.runs.run import RunError, open_run, trained_on
from convatlas.weights.load import load_own

WEIGHTS = ("final", "ema", "raw", "snapshots", "snapshots:N", "step:N")
"""Which weights of a run can be asked for."""

# Training images that the statistics of batch normalisation are estimated of, and how many at a time.
MOST_IMAGES, BATCH = 2048, 64

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def load_weights_of(
    folder: str | Path, weights: str = "final", *, note: Callable[[str], None] = lambda text: None
) -> Network[Any]:
    """Loads the network of a finished run with weights of one's choice.

    Args:
        folder: of the run.
        weights: "final", those that the run ended with; "ema", the moving average in its newest checkpoint;
            "raw", the weights themselves there, which "final" are not where the recipe averages; "step:N",
            those of the checkpoint of that step; "snapshots" or "snapshots:N", the mean of the weights of all
            or of the newest N checkpoints. A mean of weights has other activations than its parts, so the
            statistics of batch normalisation are estimated again, on up to 2,048 training images.
        note: is told, in a line, what was averaged and estimated.

    Raises:
        RunError: it is not the folder of a finished run, or has no such weights.
        ValueError: `weights` is none of these, a checkpoint is damaged, or the training images are gone.
    """
    kind, _, number = weights.partition(":")
    if weights not in WEIGHTS[:4] and not (kind in ("snapshots", "step") and number.isdecimal()):
        raise ValueError(f"`weights`={weights!r}; expected {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}")
    if weights != "final":
        open_run(Path(folder))  # Says what is wrong where it is no run, but the name of a network.
    net = load_network(folder)
    if weights == "final":
        return net
    root = Path(folder) / CHECKPOINTS
    steps = steps_in(root)
    if not steps:
        raise RunError(f"{folder}: holds no checkpoints, only the weights that it ended with")
    if kind == "snapshots":
        return _mean_of_snapshots(net, Path(folder), _newest(steps, number, folder), note)
    step = int(number) if kind == "step" else steps[-1]
    if step not in steps:
        raise RunError(f"{folder}: has no checkpoint of step {step:,}; it has {', '.join(map(str, steps))}")
    load_own(net, _tensors(read_checkpoint(root / f"step-{step}"), kind))
    return net.eval()


def average_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several state dicts; of whole numbers, such as counts, the last one's.

    Raises:
        ValueError: there is none, or they are not of one network.

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization".
    """
    if not states:
        raise ValueError("no weights to average")
    first, last = states[0], states[-1]
    for state in states[1:]:
        wrong = sorted(first.keys() ^ state.keys()) or [k for k in first if first[k].shape != state[k].shape]
        if wrong:
            raise ValueError(f"weights of different networks: {wrong[0]!r} is not the same in all of them")
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in last.items()
    }


@torch.no_grad()
def estimate_norms(net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Estimates the running statistics of batch normalisation anew: their mean over the batches.

    Everything else runs as in evaluation, and the network is left in evaluation mode.

    Args:
        net: changed in place.
        batches: images as the network sees them, (B, C, H, W), B being 2 or more.

    Returns:
        The number of layers with such statistics; without one, no batch is taken.
    """
    net.eval()
    norms = [layer for layer in net.modules() if isinstance(layer, NORMS) and layer.track_running_stats]
    if not norms:
        return 0
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for the mean over all batches
        layer.train()
    try:
        for batch in batches:
            net(batch)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        net.eval()
    return len(norms)


def _newest(steps: list[int], number: str, folder: str | Path) -> list[int]:
    count = int(number) if number else len(steps)
    if not 1 <= count <= len(steps):
        raise RunError(
            f"{folder}: has {len(steps)} checkpoints ({', '.join(map(str, steps))}); `weights`="
            f"'snapshots:{number}' asks for {count}; `convatlas train --keep` says how many are kept"
        )
    return steps[-count:]


def _mean_of_snapshots(
    net: Network[Any], folder: Path, steps: list[int], note: Callable[[str], None]
) -> Network[Any]:
    root = folder / CHECKPOINTS
    states = [read_checkpoint(root / f"step-{step}").tensors("weights") for step in steps]
    load_own(net, average_weights(states))
    shown = ", ".join(f"{step:,}" for step in steps)
    layers = estimate_norms(net, _training_images(net, folder))
    estimated = f"; statistics of {layers} normalisations estimated again on training images"
    note(f"weights are the mean of those after steps {shown}{estimated if layers else ''}")
    return net


def _tensors(found: Checkpoint, kind: str) -> dict[str, Tensor]:
    if kind != "ema":
        return found.tensors("weights")
    if not (found.folder / "average.safetensors").is_file():
        raise RunError(
            f"{found.folder.parent.parent}: its recipe keeps no moving average of the weights; "
            "`convatlas train --set ema_decay=0.999` does"
        )
    return found.tensors("average")


def _training_images(net: Network[Any], folder: Path) -> Iterator[Tensor]:
    """Up to `MOST_IMAGES` training images of a run, evenly spread, as they are shown in a test."""
    record = open_run(folder).record
    if not record.get("data", {}).get("named", True):
        raise RunError(
            f"{folder}: was trained on data from Python; the statistics of batch normalisation of averaged "
            "weights cannot be estimated without them"
        )
    source = trained_on(folder, record)
    transform: Any = net.transform
    views = Views(Protocol(), transform, is_ready=source.image_size is not None)
    split: Samples = source.train
    count = min(len(split), MOST_IMAGES)
    chosen = np.linspace(0, len(split) - 1, count).round().astype(np.int64).tolist()
    for begin in range(0, count, BATCH):
        rows = chosen[begin : begin + BATCH]
        if len(rows) > 1:
            yield transform.normalise(torch.cat([views(split.image(row))[0] for row in rows]))
