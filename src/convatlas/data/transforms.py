"""From an image to the tensor that a network was trained on."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convatlas.catalog.cards import Card
from convatlas.data.colour import normalisation, normalise
from convatlas.data.digits import digit_from_image
from convatlas.data.fit import FITS, Fit, count_tiles, fit_image
from convatlas.files import with_tuples

# Beyond any network of the atlas: a record that asks for more is not to be believed.
MAX_CHANNELS = 64
MAX_SIDE = 4096


@dataclasses.dataclass(frozen=True)
class Transform:
    """Prepares an image for a network.

    Attributes:
        kind: "digit" cuts the ink out (see `digit_from_image`); "photo" fits the image by `fit`.
        input_size: C, H, W of the result.
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.
        interpolation: "bilinear" or "bicubic", for photographs.
        crop_pct: share of the resized short side that the crop keeps, for photographs.
        fit: how a photograph that is not square becomes one: "crop" takes the middle of it, "pad" scales the
            whole and fills up with the mean colour, "squash" scales it to a square, and "tiles" shows the
            network several squares, whose probabilities are averaged.

    Raises:
        ValueError: a value cannot be; records come from files, in which anything may stand.
    """

    kind: Literal["digit", "photo"]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        """Checks every value."""
        sizes = self.input_size
        if (
            not _are_numbers(sizes, 3, int)
            or min(sizes) < 1
            or sizes[0] > MAX_CHANNELS
            or max(sizes) > MAX_SIDE
        ):
            raise ValueError(
                f"a transform with `input_size`={sizes!r}; expected C, H, W up to {MAX_CHANNELS} channels "
                f"and {MAX_SIDE} px"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not _are_numbers(values, sizes[0], int | float):
                raise ValueError(f"a transform with `{name}`={values!r}; expected {sizes[0]} numbers")
        if min(self.std) <= 0.0:
            raise ValueError(f"a transform with `std`={self.std!r}; expected numbers above 0")
        if self.kind not in ("digit", "photo") or self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"a transform of an unknown kind: {self.kind!r}, {self.interpolation!r}")
        if self.fit not in FITS:
            raise ValueError(f"a transform with `fit`={self.fit!r}; expected one of {', '.join(FITS)}")
        if not _are_numbers((self.crop_pct,), 1, int | float) or not 0.0 < self.crop_pct <= 1.0:
            raise ValueError(
                f"a transform with `crop_pct`={self.crop_pct!r}; expected a share above 0, up to 1"
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """Prepares one image: (C, H, W) in float32.

        Raises:
            ValueError: there is nothing on the image.
        """
        return self.prepare(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))

    def prepare(self, image: Tensor, view: int | None = None) -> Tensor:
        """Prepares one image, by one thread alone, so that many can work side by side.

        Args:
            image: (3, H, W) of uint8, RGB.
            view: which one; None for the middle one.

        Returns:
            (C, H, W) of float32, channels-last in memory; to the bit what `normalise` gives for a batch.

        Raises:
            ValueError: there is nothing on the image.
        """
        rows = np.ascontiguousarray(self.pixels(image, view).permute(1, 2, 0).numpy())
        height, width, chans = rows.shape
        scale, offset = normalisation(self.mean, self.std)
        # The numbers of a whole row at once: a third of the time that torch takes channel by channel.
        values = rows.reshape(height, -1) * np.tile(scale.astype(np.float32), width)
        values += np.tile(offset.astype(np.float32), width)
        return torch.from_numpy(values.reshape(height, width, chans)).permute(2, 0, 1)

    def count_views(self, height: int, width: int) -> int:
        """Views of an image of so many px: 1, but for "tiles" of one that is not square."""
        return count_tiles(height, width) if self.kind == "photo" and self.fit == "tiles" else 1

    def views(self, image: Tensor) -> list[Tensor]:
        """All views of an image (3, H, W) of uint8, each as `pixels` gives it."""
        return [self.pixels(image, view) for view in range(self.count_views(image.shape[1], image.shape[2]))]

    def pixels(self, image: Tensor, view: int | None = None) -> Tensor:
        """All of it but the normalisation, which is faster for a whole batch.

        Args:
            image: (3, H, W) of uint8, RGB.
            view: which one; None for the middle one.

        Returns:
            (C, H, W) of uint8.

        Raises:
            ValueError: there is nothing on the image.
        """
        chans = self.input_size[0]
        if chans == 1 or self.kind == "digit":
            grey = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
            if self.kind == "digit":
                return digit_from_image(grey)
            image = torch.from_numpy(np.array(grey))[None]
        return self.fitted(image, view)

    def fitted(self, image: Tensor, view: int | None = None) -> Tensor:
        """Brings an image that has the network's channels, (C, h, w) of uint8, to its size: (C, H, W)."""
        if view is None:
            view = self.count_views(image.shape[1], image.shape[2]) // 2
        _, height, width = self.input_size
        return fit_image(
            image,
            (height, width),
            self.fit,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            fill=self.fill,
            view=view,
        )

    @property
    def fill(self) -> tuple[int, ...]:
        """Value of each channel where a padded photograph does not reach: the mean, which becomes 0."""
        return tuple(min(255, max(0, round(255.0 * value))) for value in self.mean)

    @property
    def resized_side(self) -> int:
        """Px that the shorter side of a photograph is resized to, or that it needs to have at most."""
        share = self.crop_pct if self.fit == "crop" else 1.0
        return round(max(self.input_size[1:]) / share)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Brings uint8 (..., C, H, W) to float32 with the mean and deviation of training."""
        return normalise(pixels, self.mean, self.std)

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


def _are_numbers(values: Any, count: int, kind: Any) -> bool:
    """Whether these are so many finite numbers."""
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(value, kind) and math.isfinite(value) for value in values)
    )
