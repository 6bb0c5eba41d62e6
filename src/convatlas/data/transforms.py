"""From a picture to the tensor that a network was trained on."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convatlas.data.digits import digit_from_picture
from convatlas.files import with_tuples
from convatlas.models.cards import Card


@dataclasses.dataclass(frozen=True)
class Transform:
    """Prepares a picture for a network.

    Attributes:
        kind: "digit" cuts the ink out (see `digit_from_picture`); "photo" resizes the short side and takes
            the central crop.
        input_size: C, H, W of the result.
        mean: per channel, for values in [0, 1].
        std: per channel, likewise.
        interpolation: "bilinear" or "bicubic", for photographs.
        crop_pct: share of the resized short side that the crop keeps, for photographs.
    """

    kind: Literal["digit", "photo"]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 0.875

    def __call__(self, picture: Image.Image) -> Tensor:
        """Prepares one picture: (C, H, W) in float32.

        Raises:
            ValueError: there is nothing on the picture.
        """
        pixels = digit_from_picture(picture) if self.kind == "digit" else self._crop(picture)
        return self.normalise(pixels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Brings uint8 (..., C, H, W) to float32 with the mean and deviation of training."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels.float() / 255.0 - mean) / std

    def _crop(self, picture: Image.Image) -> Tensor:
        chans, height, width = self.input_size
        image = picture.convert("L" if chans == 1 else "RGB")
        factor = max(height, width) / self.crop_pct / min(image.size)
        size = [max(1, round(side * factor)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling[self.interpolation.upper()])
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        crop = np.asarray(image.crop((left, top, left + width, top + height)))
        return torch.from_numpy(crop.reshape(height, width, chans).copy()).permute(2, 0, 1)

    def record(self) -> str:
        """The transform as JSON, which `read_transform` reads."""
        return json.dumps(dataclasses.asdict(self))


def read_transform(record: str) -> Transform:
    """Reads what `Transform.record` wrote.

    Raises:
        ValueError: it is no such record.
    """
    try:
        return Transform(**with_tuples(json.loads(record)))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the record of a transform ({error})") from None


def card_transform(card: Card, kind: Literal["digit", "photo"] = "photo") -> Transform:
    """The transform that a card states."""
    return Transform(kind, card.input_size, card.mean, card.std, card.interpolation, card.crop_pct)
