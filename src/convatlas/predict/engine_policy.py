"""Which engine a predictor uses: `choose_engine` decides, from what is asked for and what is to come.

The search for the fastest engine takes a minute, unless its outcome is remembered. It pays where the network
itself would take longer.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convatlas.data.transforms import Transform
from convatlas.engines.backend import Precision
from convatlas.engines.exported import ExportedNetwork
from convatlas.engines.optimize import is_remembered
from convatlas.engines.worker import estimate_latency
from convatlas.predict.inputs import count_items
from convatlas.predict.video import STREAMS

EngineName = Literal["eager", "auto"]
"""The network as it is, or the fastest engine on this machine."""

# Seconds of the network alone. An engine is 1.5 to 5 times as fast, so that both are won back with certainty.
LONG, LONG_FOR_REMEMBERED = 180.0, 15.0
FEW = 64
"""Images for which nothing is measured: they are predicted before."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a predictor is going to predict.

    Attributes:
        images: files, folders, patterns, films and streams, or a number of images; None where it is not
            known. What comes by standard input is not counted.
        fps: frames a second that are taken from a film; None for all.
        begun: the engine that has predicted the first part of the same job, which goes on with it.
    """

    images: Sequence[str | os.PathLike[str]] | int | None = None
    fps: float | None = 1.0
    begun: EngineName | None = None

    def count(self, most: int) -> int:
        """About how many images these are; counting ends at `most`.

        Raises:
            ValueError: there is a film, and PyAV is not installed.
        """
        if self.images is None or isinstance(self.images, int):
            return min(self.images or 0, most)
        return count_items(self.images, self.fps, most=most)

    @property
    def is_live(self) -> bool:
        """Whether a live stream is among the images."""
        named = () if self.images is None or isinstance(self.images, int) else self.images
        return any(os.fspath(image).startswith(STREAMS) for image in named)


def choose_engine(
    engine: EngineName | None,
    network: nn.Module,
    transform: Callable[[Any], Tensor],
    workload: Workload,
    *,
    precision: Precision,
    batch_size: int,
    device: torch.device,
) -> EngineName:
    """The engine of a predictor: the one that is asked for, or the one that finishes a workload first.

    Where nobody asks, and full precision is wanted, "auto" is chosen if the search for the fastest engine is
    won back, and for a live stream: a network that falls behind is of no use there. A workload that is not
    known is computed by the network itself.

    Args:
        engine: that is asked for; None for the one that pays.
        network: may be run a few times, on an empty image.
        transform: of the network.
        workload: what is to be predicted.
        precision: the lowest that is allowed.
        batch_size: images that go through the network together.
        device: of the network.

    Raises:
        ValueError: there is no such engine, it cannot run this network or has no such precision, or there is
            a film, and PyAV is not installed.
    """
    if engine not in ("eager", "auto", None):
        raise ValueError(f"`engine`={engine!r}; expected 'eager' or 'auto'")
    if engine == "eager" and precision != "fp32":
        raise ValueError(f"`precision`={precision!r} has a meaning with `engine`='auto' only")
    if isinstance(network, ExportedNetwork):
        if engine == "auto" or precision != "fp32":
            asked = f"`engine`={engine!r}" if engine == "auto" else f"`precision`={precision!r}"
            raise ValueError(f"{asked}: a network in a file is run by the engine of its kind")
        return "eager"
    asked = engine or workload.begun
    if asked is not None:
        return asked
    if precision != "fp32":
        return "auto"
    if not isinstance(transform, Transform):
        return "eager"
    return "auto" if _pays(network, transform.input_size, workload, batch_size, device) else "eager"


def _pays(
    network: nn.Module, size: tuple[int, int, int], workload: Workload, batch_size: int, device: torch.device
) -> bool:
    """Whether the search for the fastest engine is won back."""
    if workload.is_live:
        return True
    if workload.count(most=FEW) < FEW:
        return False
    seconds = estimate_latency(torch.inference_mode()(network), torch.zeros(1, *size, device=device))
    enough = math.ceil(LONG / seconds)
    count = workload.count(most=enough)
    if count == enough:
        return True
    return count * seconds >= LONG_FOR_REMEMBERED and is_remembered(network, size, batch_size)
