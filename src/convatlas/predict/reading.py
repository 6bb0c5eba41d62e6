"""From an image that a user hands over to the tensor that a network takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from convatlas.data.image_files import ImageError
from convatlas.data.transforms import Transform
from convatlas.predict.inputs import Item, read_pixels

REDUCING_GAP = 2
"""Px of a decoded JPEG for each that it is resized to, at the least; Pillow's thumbnails keep as many."""


def prepared(
    item: Item, transform: Callable[[Any], Tensor], exact: bool = True, as_bytes: bool = False
) -> Tensor:
    """Reads an image and brings it to the size of the network.

    Returns:
        (C, H, W), what the transform gives; without its normalisation, of uint8, where `as_bytes`. Of a
        transform with several views of an image, (V, C, H, W).

    Raises:
        ImageError: it cannot be used.
    """
    least_side = None
    if isinstance(transform, Transform) and transform.kind == "photo" and not exact:
        least_side = REDUCING_GAP * transform.resized_side
    pixels = read_pixels(item, least_side)
    try:
        if isinstance(transform, Transform):
            prepare = transform.pixels if as_bytes else transform.prepare
            if transform.fit != "tiles":
                return prepare(pixels)
            count = transform.count_views(pixels.shape[1], pixels.shape[2])
            return torch.stack([prepare(pixels, view) for view in range(count)])
        return transform(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    except (ValueError, RuntimeError) as error:
        raise ImageError(f"{item.name}: {error}") from None
