"""What a data set is: numbered samples, each an image with a label, in a training and a test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convatlas.data.counter_random import permutation
from convatlas.data.crops import with_channels
from convatlas.data.image_files import ImageError, decode_image, plain_image
from convatlas.data.tables import Files, IntArray

OnBadImage = Literal["refuse", "skip"]
# Is told, in a line, what takes long.
Note = Callable[[str], None]


class DataError(ValueError):
    """Data that cannot be used; the message names the place and says why."""


class Samples(Protocol):
    """Labelled images by number; the same number gives the same image each time."""

    @property
    def labels(self) -> Tensor:
        """(N,) of int64."""
        ...

    def __len__(self) -> int:
        """N, the number of samples."""
        ...

    def image(self, index: int) -> Tensor:
        """The image of a sample: (C, H, W) of uint8.

        Raises:
            ImageError: it cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """Where a person finds the image."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in memory.

    Attributes:
        images: (N, C, H, W) of uint8.
        labels: (N,) of int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """The image of a sample: (C, H, W) of uint8."""
        return self.images[index]

    def name(self, index: int) -> str:
        """The number of the sample."""
        return f"image {index}"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFileSet:
    """Labelled image files, on disk or in shards, decoded when they are asked for.

    Attributes:
        files: where they lie; shared between the splits of one source.
        rows: which of the files are the samples, (N,).
        labels: (N,) of int64.
        sizes: height and width in px where they are known, else 0: (N, 2).
    """

    files: Files
    rows: IntArray
    labels: Tensor
    sizes: IntArray

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """The image of a sample in RGB: (3, H, W) of uint8.

        Raises:
            ImageError: it cannot be read, or is no image.
        """
        row = int(self.rows[index])
        return decode_image(self.files.read(row), self.files.name(row))

    def name(self, index: int) -> str:
        """The path of the file, or the shard and the name in it."""
        return self.files.name(int(self.rows[index]))


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetSet:
    """Any map-style dataset that gives (image, label).

    Attributes:
        dataset: with `__len__` and `__getitem__`; gives a PIL image, an array (H, W) or (H, W, C) of uint8,
            or a tensor (H, W) or (C, H, W) of uint8 or of values in [0, 1]; the same each time.
        labels: (N,) of int64.
        chans: C that every image is brought to: grey is repeated, colour becomes its luminance; None for as
            they are.
    """

    dataset: Any
    labels: Tensor
    chans: int | None = None

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """The image of a sample: (C, H, W) of uint8.

        Raises:
            ImageError: what the dataset gives is no image.
        """
        pixels = to_pixels(self.dataset[index][0], self.name(index))
        return pixels if self.chans is None else with_channels(pixels, self.chans)

    def name(self, index: int) -> str:
        """The number of the sample."""
        return f"{type(self.dataset).__name__}[{index}]"


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """Some of other samples.

    Attributes:
        samples: of which they are some.
        rows: which ones, (N,).
        labels: theirs, (N,) of int64.
    """

    samples: Samples
    rows: IntArray
    labels: Tensor

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """The image of a sample: (C, H, W) of uint8.

        Raises:
            ImageError: it cannot be read.
        """
        return self.samples.image(int(self.rows[index]))

    def name(self, index: int) -> str:
        """Where a person finds the image."""
        return self.samples.name(int(self.rows[index]))


@dataclasses.dataclass(frozen=True)
class SkippedImage:
    """An image that is left out.

    Attributes:
        path: where it lies.
        reason: why it cannot be used.
    """

    path: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set with its split.

    Attributes:
        name: as `load_source` knows it.
        train: what is trained on.
        test: what is only measured on.
        class_names: a name for each label.
        fingerprint: SHA-256 over both splits, in hexadecimal; the same data have the same.
        image_size: C, H, W where all images have that size; None for images of any size.
        skipped: the images that are left out because they cannot be read.
    """

    name: str
    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    fingerprint: str
    image_size: tuple[int, int, int] | None = None
    skipped: tuple[SkippedImage, ...] = ()


def choose_rows(samples: Samples, rows: IntArray) -> Samples:
    """Some of other samples, by number; images in memory stay together in memory."""
    chosen = torch.from_numpy(rows)
    if isinstance(samples, ImageSet):
        return ImageSet(samples.images[chosen], samples.labels[chosen])
    if isinstance(samples, ImageFileSet):
        labels = samples.labels[chosen]
        return ImageFileSet(samples.files, samples.rows[rows], labels, samples.sizes[rows])
    return Chosen(samples, rows, samples.labels[chosen])


def stratified_mask(labels: Tensor, *, share: float, seed: int) -> Tensor:
    """Marks the same share of each class, chosen by `seed`: (N,) of bool; negative labels are no class."""
    order = np.argsort(labels.numpy(), kind="stable")
    classes, starts = np.unique(labels.numpy()[order], return_index=True)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label, members in zip(classes.tolist(), np.split(order, starts[1:]), strict=True):
        chosen = permutation(seed, 0, len(members), f"split {label}")[: round(len(members) * share)]
        if label >= 0:
            mask[torch.from_numpy(members[chosen])] = True
    return mask


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun, for messages: "1 image", "1,000 images"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def to_pixels(value: Any, name: str) -> Tensor:
    """Brings what a dataset gives to a tensor (C, H, W) of uint8.

    Args:
        value: a PIL image, an array or a tensor, as `DatasetSet` takes them.
        name: of the sample, for messages.

    Raises:
        ImageError: it is none of these.
    """
    if isinstance(value, Image.Image):
        try:
            value = np.array(plain_image(value))
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from None
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value if value.ndim != 3 else value.transpose(2, 0, 1)))
    if not isinstance(value, Tensor):
        raise ImageError(f"{name}: is a {type(value).__name__}; expected a PIL image, an array or a tensor")
    if value.ndim == 2:
        value = value[None]
    if value.ndim != 3 or value.shape[0] not in (1, 3):
        raise ImageError(
            f"{name}: has the shape {tuple(value.shape)}; expected 1 or 3 channels: a tensor (C, H, W), "
            "or an array (H, W, C)"
        )
    if value.dtype == torch.uint8:
        return value
    if not value.is_floating_point():
        raise ImageError(f"{name}: holds {value.dtype}; expected uint8, or values in [0, 1]")
    low, high = float(value.min()), float(value.max())
    if not 0.0 <= low <= high <= 1.0:
        raise ImageError(
            f"{name}: holds values from {low:.3g} to {high:.3g}; expected uint8, or values in [0, 1]: "
            "give images before they are normalised, the network's mean and deviation are applied later"
        )
    return value.mul(255.0).round().to(torch.uint8)
