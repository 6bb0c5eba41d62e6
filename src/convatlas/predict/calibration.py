"""Images that int8 engines and files are calibrated on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convatlas.data.image_files import ImageError
from convatlas.predict.inputs import find_items
from convatlas.predict.predictor import prepared

MOST_IMAGES = 256


def read_calibration(
    folder: str | Path, transform: Callable[[Any], Tensor] | None, most: int = MOST_IMAGES
) -> Tensor:
    """The first images of a folder as a network sees them: (N, C, H, W).

    Args:
        folder: a folder of images, or what else `convatlas predict` takes.
        transform: the network's.
        most: N at the most.

    Raises:
        ValueError: there is no image that can be used, or no transform.
    """
    if transform is None:
        raise ValueError("the network has no `transform`, which tells how images become its input")
    images: list[Tensor] = []
    reason = "it is empty"
    for item in itertools.islice(find_items(folder), most):
        try:
            image = prepared(item, transform)
            images += list(image) if image.dim() == 4 else [image]
        except ImageError as error:
            reason = str(error)
    if not images:
        raise ValueError(f"`calibrate`: {folder} holds no image that can be used ({reason})")
    return torch.stack(images[:most])
