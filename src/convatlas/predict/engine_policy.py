"""Whether the search for the fastest engine pays: it takes a minute, unless its outcome is remembered."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch

from convatlas.data.transforms import Transform
from convatlas.engines.exported import ExportedNetwork
from convatlas.engines.optimize import is_remembered
from convatlas.engines.worker import estimate_latency
from convatlas.predict.inputs import count_items
from convatlas.predict.predictor import EngineName, Predictor
from convatlas.predict.video import STREAMS

# Seconds of the network alone. An engine is 1.5 to 5 times as fast, so that both are won back with certainty.
LONG, LONG_FOR_REMEMBERED = 180.0, 15.0
FEW = 64
"""Images for which nothing is measured: they are answered before."""


def choose_engine(
    predictor: Predictor, images: Sequence[str | os.PathLike[str]], fps: float | None
) -> EngineName:
    """The engine that has so many images answered first, the search for it included.

    A live stream has the fastest: a network that falls behind is of no use there.

    Args:
        predictor: that answers; its network is run a few times, on an empty image.
        images: files, folders, patterns, films and streams; what comes by standard input is not counted.
        fps: frames a second that are taken from a film; None for all.

    Raises:
        ValueError: there is a film, and PyAV is not installed.
    """
    transform = predictor.transform
    if isinstance(predictor.network, ExportedNetwork) or not isinstance(transform, Transform):
        return "eager"
    if any(os.fspath(image).startswith(STREAMS) for image in images):
        return "auto"
    if count_items(images, fps, most=FEW) < FEW:
        return "eager"
    image = torch.zeros(1, *transform.input_size, device=predictor.device)
    seconds = estimate_latency(torch.inference_mode()(predictor.network), image)
    enough = math.ceil(LONG / seconds)
    count = count_items(images, fps, most=enough)
    if count == enough:
        return "auto"
    is_long = count * seconds >= LONG_FOR_REMEMBERED
    known = is_long and is_remembered(predictor.network, transform.input_size, predictor.batch_size)
    return "auto" if known else "eager"
