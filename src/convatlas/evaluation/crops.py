"""The papers' ways of showing a test image: which views of it a network sees, and how they are averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from convatlas.data.crops import with_channels
from convatlas.data.resize import STRIP, central_crop, resize
from convatlas.data.transforms import Transform
from convatlas.errors import unknown

ProtocolName = Literal["single", "10crop", "144crop", "dense", "multiscale"]
Average = Literal["probabilities", "logits"]

# What GoogLeNet's scales 256, 288, 320 and 352 are to its crops of 224 px.
GOOGLENET_SCALES = (256 / 224, 288 / 224, 320 / 224, 352 / 224)
# What VGG's scales 224, 256 and 288 of a network that was trained at 256 are to that.
VGG_SCALES = (224 / 256, 1.0, 288 / 256)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a test image is shown to a network.

    | name | views |
    |---|---|
    | single | the middle of the image |
    | 10crop | corners and middle of the middle square, and their mirror images (AlexNet, ResNet) |
    | 144crop | at four scales three squares, of each six crops and their mirror images (GoogLeNet) |
    | dense | the whole image, with the classifier sliding over the last map (VGG) |
    | multiscale | the same at several scales (VGG, ResNet) |

    Attributes:
        name: as in the table.
        scales: px that the image's short side is brought to, at each scale; None for the protocol's own.
        flip: show the mirror images, too; 10crop and 144crop do so anyway.
        average: what is averaged over the views, "probabilities" or "logits".
    """

    name: ProtocolName = "single"
    scales: tuple[int, ...] | None = None
    flip: bool = False
    average: Average = "probabilities"

    def __post_init__(self) -> None:
        """Checks what needs no network.

        Raises:
            ValueError: a name is unknown, or there are scales that the protocol has no use for.
        """
        if self.name not in get_args(ProtocolName):
            raise unknown("protocol", self.name, get_args(ProtocolName), ", ".join(get_args(ProtocolName)))
        if self.average not in get_args(Average):
            raise ValueError(f"`average`={self.average!r}; expected 'probabilities' or 'logits'")
        if self.scales is None:
            return
        if not self.scales or any(scale < 1 for scale in self.scales):
            raise ValueError(f"`scales`={list(self.scales)}; expected px of the short side, such as 256")
        if len(self.scales) > 1 and self.name not in ("144crop", "multiscale"):
            raise ValueError(
                f"`scales`={list(self.scales)}: protocol {self.name!r} has one scale; several are shown by "
                "'multiscale' and '144crop'"
            )

    @property
    def is_dense(self) -> bool:
        """Whether the classifier slides over the map of the whole image."""
        return self.name in ("dense", "multiscale")

    def scales_for(self, transform: Transform) -> tuple[int, ...]:
        """Px of the short side at each scale, for a network.

        Without `scales`, they are to the size of the network's input what the paper's are to its own.

        Raises:
            ValueError: one is smaller than the network's input.
        """
        size = max(transform.input_size[1:])
        usual = round(size / transform.crop_pct)
        found = self.scales
        if found is None and self.name == "144crop":
            found = tuple(round(size * ratio) for ratio in GOOGLENET_SCALES)
        elif found is None and self.name == "multiscale":
            found = tuple(dict.fromkeys(max(size, round(usual * ratio)) for ratio in VGG_SCALES))
        elif found is None:
            found = (usual,)
        if min(found) < size:
            raise ValueError(
                f"`scales`={list(found)}: {min(found)} px are less than the network's input; "
                f"expected {size} or more"
            )
        return found

    def count_views(self, transform: Transform) -> int:
        """Views of one image that a network sees."""
        each = {"10crop": 10, "144crop": 36}.get(self.name, 1 + self.flip)
        return each * len(self.scales_for(transform))


@dataclasses.dataclass(frozen=True)
class Views:
    """Makes the views of an image for one network.

    Attributes:
        protocol: which ones.
        transform: of the network.
        is_ready: whether images come as the network learnt them, so that a digit's ink is not cut out.
    """

    protocol: Protocol
    transform: Transform
    is_ready: bool = False

    def __call__(self, image: Tensor) -> list[Tensor]:
        """The views of one image.

        Args:
            image: (C, H, W) of uint8.

        Returns:
            For each scale, views (V, C, h, w) of uint8.

        Raises:
            ValueError: there is nothing on the image.
        """
        name, how = self.protocol.name, self.transform.interpolation
        chans, *size = self.transform.input_size
        height, width = size
        if name == "single" and self.protocol.scales is None:
            return [self._with_mirror(self._as_predicted(image))]
        image = with_channels(image, chans)
        scales = self.protocol.scales_for(self.transform)
        if name == "10crop":
            return [ten_crops(image, (height, width), scales[0], how)]
        if name == "144crop":
            return [many_crops(image, (height, width), scale, how) for scale in scales]
        if name == "single":
            square = central_crop(image, (scales[0], scales[0]), 1.0, how)
            return [self._with_mirror(_middle(square, height, width)[None])]
        return [self._with_mirror(whole(image, scale, how)[None]) for scale in scales]

    def _as_predicted(self, image: Tensor) -> Tensor:
        transform = self.transform
        if not self.is_ready and transform.kind == "digit":
            return transform.pixels(with_channels(image, 3))[None]
        image = with_channels(image, transform.input_size[0])
        count = transform.count_views(image.shape[1], image.shape[2])
        return torch.stack([transform.fitted(image, view) for view in range(count)])

    def _with_mirror(self, views: Tensor) -> Tensor:
        return torch.cat([views, views.flip(-1)]) if self.protocol.flip else views


def ten_crops(image: Tensor, size: tuple[int, int], scale: int, interpolation: str) -> Tensor:
    """The four corners and the middle of the middle square, and their mirror images.

    Args:
        image: (C, H, W) of uint8.
        size: height and width of each crop, px.
        scale: px of the square, which is the image's short side resized to that.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (10, C, *size): top left, top right, bottom left, bottom right, middle; then the mirror images.

    Source: Krizhevsky, Sutskever and Hinton 2012, Sections 2 and 4.1; He et al. 2015, Section 3.4.
    """
    square = central_crop(image, (scale, scale), 1.0, interpolation)
    return _mirrored(_five_crops(square, size))


def many_crops(image: Tensor, size: tuple[int, int], scale: int, interpolation: str) -> Tensor:
    """GoogLeNet's crops at one of its scales.

    The short side is resized. Of the left, middle and right square (top, middle and bottom of an upright
    image) the four corners, the middle, and the square itself resized to `size` are taken, each with its
    mirror image.

    Args:
        image: (C, H, W) of uint8.
        size: height and width of each crop, px.
        scale: px of the short side.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (36, C, *size).

    Source: Szegedy et al. 2014, Section 7.
    """
    resized = whole(image, scale, interpolation)
    _, height, width = resized.shape
    crops: list[Tensor] = []
    for share in (0, 1, 2):
        top, left = share * (height - scale) // 2, share * (width - scale) // 2
        square = resized[:, top : top + scale, left : left + scale]
        crops += [*_five_crops(square, size), resize(square.contiguous(), size, interpolation)]
    return _mirrored(crops)


def whole(image: Tensor, scale: int, interpolation: str) -> Tensor:
    """The whole image with its short side resized; of one 16 times as long as that, the middle.

    Args:
        image: (C, H, W) of uint8.
        scale: px of the short side of the result.
        interpolation: "bilinear" or "bicubic".
    """
    longest = STRIP * min(image.shape[1:])
    image = _middle(image, *(min(side, longest) for side in image.shape[1:]))
    factor = scale / min(image.shape[1:])
    height, width = (max(scale, round(side * factor)) for side in image.shape[1:])
    return resize(image, (height, width), interpolation)


def _five_crops(image: Tensor, size: tuple[int, int]) -> list[Tensor]:
    height, width = size
    corners = [
        image[:, rows, columns]
        for rows in (slice(None, height), slice(-height, None))
        for columns in (slice(None, width), slice(-width, None))
    ]
    return [*corners, _middle(image, height, width)]


def _middle(image: Tensor, height: int, width: int) -> Tensor:
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


def _mirrored(crops: Sequence[Tensor]) -> Tensor:
    views = torch.stack([*crops])
    return torch.cat([views, views.flip(-1)])
