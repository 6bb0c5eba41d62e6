"""Convolutions of ours in place of torch's in training steps on CPUs, where they are faster."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from convatlas.files import cache_folder
from convatlas.native import CompilerError
from convatlas.training.kernels import LAST, library

ROUNDS = 5
SHORTEST = 4  # floats in a vector, of all processors


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Convolutions of ours for some of torch's.

    Attributes:
        name: in the names of files.
        layers: what they replace, in words.
        manner: how they are computed, in words.
        find: those of a network that they are for, given the floats of a vector.
        change: puts them into a network, in place of torch's.
        make: one of torch's, of so many channels, to compare with.
        trials: images, channels and sides of maps that the two are compared on, of small and large networks.
    """

    name: str
    layers: str
    manner: str
    find: Callable[[nn.Module, int], list[nn.Conv2d]]
    change: Callable[[nn.Module], None]
    make: Callable[[int], nn.Conv2d]
    trials: tuple[tuple[int, int, int], ...]


def gain(ours: Replacement, dtype: torch.dtype | None) -> float:
    """How many times as fast as torch's such convolutions are here, forward and backward.

    It is measured once, in less than a second, and remembered: a run that goes on takes the same way.

    Args:
        ours: what is compared with torch's.
        dtype: of autocast; None for float32.

    Raises:
        CompilerError: there is no compiler, or the measurement cannot be kept.
    """
    threads, name = torch.get_num_threads(), f"{Path(library()._name).stem}-{ours.name}"
    path = (
        cache_folder() / "native" / f"{name}-torch{torch.__version__}-{dtype or torch.float32}-{threads}.json"
    )
    try:
        if not path.exists():
            _write_first(path, json.dumps(_measure(ours, dtype)))
        return float(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise CompilerError(f"what was measured cannot be kept in {path} ({error})") from None


def _measure(ours: Replacement, dtype: torch.dtype | None) -> float:
    with torch.random.fork_rng(devices=[]):
        spent = [_compare(ours, *trial, dtype) for trial in ours.trials]
    return round(sum(theirs for theirs, _ in spent) / sum(ours for _, ours in spent), 2)


def _compare(
    ours: Replacement, images: int, chans: int, side: int, dtype: torch.dtype | None
) -> tuple[float, float]:
    """The least seconds of a step by torch, and by ours, in turns."""
    nets = [ours.make(chans).to(memory_format=LAST) for _ in range(2)]
    ours.change(nets[1])
    x = torch.randn(images, chans, side, side).to(memory_format=LAST, dtype=dtype).requires_grad_()
    least = [math.inf, math.inf]
    for _, (i, net) in itertools.product(range(ROUNDS), enumerate(nets)):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            y = net(x)
        y.backward(torch.ones_like(y))
        least[i] = min(least[i], time.perf_counter() - began)
    return least[0], least[1]


def _write_first(path: Path, text: str) -> None:
    """Writes a file unless another process was faster: all processes find what the first one wrote."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent) as draft:
        draft.write(text)
        draft.flush()
        try:
            os.link(draft.name, path)
        except FileExistsError:
            return
