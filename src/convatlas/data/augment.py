"""Augmentation: what may happen to training images, and doing it to a whole batch.

Each sample has its own draws, which are a function of (seed, epoch, sample, operation) and of nothing else.
So it looks the same whatever the batch size, its place in the batch, the number of workers or machines.

Importing this module needs no torch, so that recipes can be read without it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

Interpolation = Literal["bilinear", "bicubic", "random"]
"""How an image is resized; "random" draws nearest, bilinear, bicubic or area for each image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """A random part of the image, resized to the size that is trained on.

    Attributes:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height.
        interpolation: of the resizing.

    Source: Szegedy et al. 2014, "Going Deeper with Convolutions", Section 6.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        _check_range("scale", self.scale, most=1.0)
        _check_range("ratio", self.ratio)
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleJitter:
    """The image at a random size, then a random crop. With `low` equal to `high`, the crop alone is random.

    Attributes:
        low: px of the short side at least, for crops of `crop` px; for other sizes in proportion.
        high: px at most, in the same way.
        crop: px of the crops that `low` and `high` are for.
        interpolation: of the resizing.

    Source: Krizhevsky et al. 2012, Section 4.1 (256); Simonyan and Zisserman 2014, Section 3.1 (256 to 512);
    He et al. 2015, Section 3.4 (256 to 480).
    """

    low: int = 256
    high: int = 512
    crop: int = 224
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        if not _is_whole(self.crop, 1):
            raise ValueError(f"`crop`={self.crop!r}; expected a whole number of px, at least 1")
        if not _is_whole(self.low, self.crop) or not _is_whole(self.high, self.crop) or self.low > self.high:
            raise ValueError(
                f"`low`={self.low!r}, `high`={self.high!r}; expected whole numbers of px, "
                f"{self.crop} <= low <= high"
            )
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Random operations of torchvision on each image: colour, contrast, shear, rotation, ...

    Attributes:
        kind: "rand_augment" applies `num_ops` operations of one strength; "trivial_augment" one of a random
            strength.
        num_ops: operations for each image, of "rand_augment".
        magnitude: their strength on torchvision's scale of 0 to 30, of "rand_augment".

    Source: Cubuk et al. 2019, "RandAugment"; Müller and Hutter 2021, "TrivialAugment".
    """

    kind: Literal["rand_augment", "trivial_augment"] = "rand_augment"
    num_ops: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        _check_choice("kind", self.kind, ("rand_augment", "trivial_augment"))
        if not _is_whole(self.num_ops, 1):
            raise ValueError(f"`num_ops`={self.num_ops!r}; expected a whole number of at least 1")
        if not _is_whole(self.magnitude, 0) or self.magnitude > 30:
            raise ValueError(f"`magnitude`={self.magnitude!r}; expected a whole number of 0 to 30")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PadCrop:
    """The image is padded, and a random part of its old size is cut out.

    Attributes:
        pad: px on each side.
        mode: "zeros" pads with black, "reflect" with the mirrored image.

    Source: He et al. 2015, Section 4.2 (zeros); Zagoruyko and Komodakis 2016, the authors' code (reflect).
    """

    pad: int = 4
    mode: Literal["zeros", "reflect"] = "zeros"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        if not _is_whole(self.pad, 1):
            raise ValueError(f"`pad`={self.pad!r}; expected a whole number of px of at least 1")
        _check_choice("mode", self.mode, ("zeros", "reflect"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """A random rotation, change of size, shear and shift; what comes in from outside is black.

    Attributes:
        degrees: largest rotation either way.
        scale: largest change of size, as the logarithm of the factor.
        shear: largest shear, px of x for each px of y.
        shift: largest shift along each axis, px.
    """

    degrees: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 2.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        for name in ("degrees", "scale", "shear", "shift"):
            _check_number(name, getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """Random brightness, contrast and saturation: each is multiplied by a factor of 1 - x to 1 + x.

    Attributes:
        brightness: x of the distance from black.
        contrast: x of the distance from the image's mean grey.
        saturation: x of the distance from the pixel's own grey; without effect on grey images.

    Source: Howard 2013, "Some Improvements on Deep CNN Based Image Classification", in the form of
    fb.resnet.torch.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        for name in ("brightness", "contrast", "saturation"):
            _check_number(name, getattr(self, name), most=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Erase:
    """A random rectangle becomes the mean colour.

    Attributes:
        rate: share of the images that lose one.
        area: smallest and largest share of the image's area.
        ratio: smallest and largest height / width.

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation", Algorithm 1.
    """

    rate: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1.0 / 0.3)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        _check_number("rate", self.rate, most=1.0)
        _check_range("area", self.area, most=1.0)
        _check_range("ratio", self.ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """All that may happen to a training image, in the order in which it happens.

    `resized_crop` or `scale_jitter`, and `policy`, work on one image of any size (`convatlas.data.crops`);
    the others on a batch (`augment_batch`), and `mixup` and `cutmix` on the finished batch
    (`convatlas.data.mixing`).

    Attributes:
        resized_crop: a random part, resized; None for none.
        scale_jitter: a random size, then a random crop; None for none.
        policy: torchvision's RandAugment or TrivialAugment; None for none.
        pad_crop: a random crop of the padded image; None for none.
        flip: share of the images that are mirrored left to right.
        affine: a random affine map; None for none.
        colour_jitter: random brightness, contrast and saturation; None for none.
        lighting: standard deviation of the steps along ImageNet's principal colours; AlexNet's is 0.1.
        erase: a random rectangle becomes the mean colour; None for none.
        cutout: px a side of a square around a random px that becomes the mean colour; 0 for none.
        mixup: alpha of the Beta distribution of the share in a mixture of two images; 0 for none.
        cutmix: alpha of the Beta distribution of the area that comes from another image;
            with both, each image draws which.
    """

    resized_crop: ResizedCrop | None = None
    scale_jitter: ScaleJitter | None = None
    policy: Policy | None = None
    pad_crop: PadCrop | None = None
    flip: float = 0.0
    affine: Affine | None = None
    colour_jitter: ColourJitter | None = None
    lighting: float = 0.0
    erase: Erase | None = None
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range, or both kinds of crop are there.
        """
        if self.resized_crop is not None and self.scale_jitter is not None:
            raise ValueError("`resized_crop` and `scale_jitter` are two ways to crop; set one to None")
        for name in ("flip", "mixup", "cutmix"):
            _check_number(name, getattr(self, name), most=1.0)
        _check_number("lighting", self.lighting)
        if not _is_whole(self.cutout, 0):
            raise ValueError(f"`cutout`={self.cutout!r}; expected a whole number of px, or 0 for none")

    @property
    def crops(self) -> bool:
        """Whether a random part of each image is taken before they are a batch."""
        return self.resized_crop is not None or self.scale_jitter is not None

    @property
    def per_image(self) -> bool:
        """Whether a part of it works on single images, before they are a batch (`TrainFit`)."""
        return any(part is not None for part in (self.resized_crop, self.scale_jitter, self.policy))

    @property
    def mixes(self) -> bool:
        """Whether a sample needs its neighbour in the epoch's order (`mix`)."""
        return self.mixup > 0.0 or self.cutmix > 0.0


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_number(name: str, value: object, most: float = math.inf) -> None:
    if not _is_number(value) or not 0.0 <= value <= most:  # pyright: ignore[reportOperatorIssue]
        allowed = "of at least 0" if math.isinf(most) else f"of 0 to {most:g}"
        raise ValueError(f"`{name}`={value!r}; expected a number {allowed}")


def _check_range(name: str, value: object, most: float = math.inf) -> None:
    fits = isinstance(value, tuple) and len(value) == 2 and all(_is_number(end) for end in value)
    if not fits or not 0.0 < value[0] <= value[1] <= most:  # pyright: ignore[reportIndexIssue]
        end = "" if math.isinf(most) else f" <= {most:g}"
        raise ValueError(f"`{name}`={value!r}; expected two numbers, 0 < low <= high{end}")


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}`={value!r}; allowed are {', '.join(map(repr, allowed))}")
