"""Images that int8 engines and files are calibrated on: of a folder, or of a data set."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.data.image_files import ImageError
from convatlas.data.preprocessing import in_memory
from convatlas.data.sets import Source
from convatlas.data.sources import CIFAR, KINDS, MNIST_LIKE, load_source
from convatlas.data.transforms import Transform
from convatlas.predict.inputs import find_items
from convatlas.predict.reading import prepared

MOST_IMAGES = 256


def read_calibration(
    images: Any, transform: Callable[[Any], Tensor] | None, most: int = MOST_IMAGES
) -> Tensor:
    """Some images as a network sees them: (N, C, H, W).

    Args:
        images: a `Source`, or a data set by its name, of which training images from all over are taken; or a
            folder of images, or what else `convatlas predict` takes, of which the first are.
        transform: the network's.
        most: N at the most.

    Raises:
        ValueError: there is no image that can be used, or no transform that fits.
    """
    if transform is None:
        raise ValueError("the network has no `transform`, which tells how images become its input")
    if isinstance(images, Source) or _is_named(images):
        return _of_source(images, transform, most)
    found: list[Tensor] = []
    reasons: list[str] = []
    for item in itertools.islice(find_items(images), most):
        try:
            image = prepared(item, transform)
            found += list(image) if image.dim() == 4 else [image]
        except ImageError as error:
            reasons.append(str(error))
    return _stacked(
        found[:most], reasons, images if isinstance(images, str | os.PathLike) else "what was given"
    )


def _is_named(images: Any) -> bool:
    """Whether this is the name of a data set, and no file is called so."""
    if not isinstance(images, str) or os.path.exists(images):  # noqa: PTH110
        return False
    return images in ("digits", *MNIST_LIKE, *CIFAR) or images.partition(":")[0] in KINDS


def _of_source(images: Source | str, transform: Callable[[Any], Tensor], most: int) -> Tensor:
    source = load_source(images, on_bad_image="skip") if isinstance(images, str) else images
    if not isinstance(transform, Transform):
        raise ValueError("a data set needs a network whose `transform` is a `convatlas.Transform`")
    chans, height, width = transform.input_size
    if source.image_size is not None:
        if source.image_size[0] != chans:
            raise ValueError(
                f"`calibration`: {source.name} has {source.image_size[0]} channels; the network takes {chans}"
            )
        if height == width and source.image_size[1:] != (height, width):
            source = in_memory(source, height)
    samples = source.train
    rows = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(np.int64))
    found: list[Tensor] = []
    reasons: list[str] = []
    for row in rows.tolist():
        try:
            image = samples.image(row)
            is_ready = image.shape == transform.input_size
            found.append(transform.normalise(image) if is_ready else transform.prepare(image))
        except (ImageError, ValueError) as error:
            reasons.append(str(error))
    return _stacked(found, reasons, source.name)


def _stacked(found: list[Tensor], reasons: list[str], name: Any) -> Tensor:
    if not found:
        why = "; ".join(reasons[:3]) or "it is empty"
        raise ValueError(f"`calibration`: {name} holds no image that can be used ({why})")
    return torch.stack(found)
