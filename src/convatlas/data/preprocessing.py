"""How images reach a network: their size, in memory or not, and the numbers that normalise them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from convatlas.catalog.cards import Card
from convatlas.data.fit import Fit, count_tiles
from convatlas.data.resize import resize
from convatlas.data.sets import Chosen, ImageFileSet, ImageSet, Samples, Source
from convatlas.data.tables import IntArray
from convatlas.data.transforms import Transform
from convatlas.weights.published import Published

# The size of images of any size for a network that is not in the atlas.
USUAL_PX = 224
# Bytes of images that are kept in memory.
MOST_IN_MEMORY = 2**30
# Images that mean and deviation are computed of, about.
MOST_MEASURED = 10_000
# ImageNet's, for values in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def in_memory(source: Source, size: int | None, fit: Fit | None = None) -> Source:
    """The source with small images of one size in memory, brought to `size` px.

    Args:
        source: the data.
        size: px a side; None for as they are.
        fit: how images that are not square become so; None for "squash". By another one they stay as they
            are, and are fitted one by one.
    """
    if source.image_size is None:
        return source
    chans, height, width = source.image_size
    if size is not None and height != width and fit not in (None, "squash"):
        return source
    height, width = (height, width) if size is None else (size, size)
    splits = {"train": source.train, "test": source.test}
    as_they_are = source.image_size == (chans, height, width)
    if as_they_are and all(isinstance(split, ImageSet) for split in splits.values()):
        return source
    if sum(map(len, splits.values())) * chans * height * width > MOST_IN_MEMORY:
        return source
    kept: dict[str, Samples] = {}
    for name, split in splits.items():
        images = [resize(split.image(i), (height, width), "bilinear") for i in range(len(split))]
        kept[name] = ImageSet(torch.stack(images), split.labels)
    return dataclasses.replace(source, image_size=(chans, height, width), **kept)


def px_for(source: Source, size: int | None, card: Card | None) -> int | None:
    """Px a side that each image is brought to; None where all have that size already."""
    if source.image_size is not None:
        return None if size is None or source.image_size[1:] == (size, size) else size
    return size or (USUAL_PX if card is None else card.input_size[1])


def make_transform(
    source: Source,
    px: int | None,
    card: Card | None,
    published: Published | None,
    fit: Fit | None = None,
) -> Transform:
    """What brings any image to what the network sees.

    Args:
        source: the data.
        px: as `px_for` gave it.
        card: of the network; None for one from elsewhere.
        published: the weights that training begins with; None for random ones.
        fit: how images that are not square become so; None for "squash" where all have one size, else "crop".
    """
    chans = 3 if source.image_size is None else source.image_size[0]
    size = source.image_size if px is None else (chans, px, px)
    assert size is not None
    like = published or card
    if like is not None and len(like.mean) == chans:
        mean, std = like.mean, like.std
    elif published is not None:
        # Published weights for one channel are the sum of those for three; so is the mean their mean.
        mean, std = ((sum(values) / len(values),) for values in (published.mean, published.std))
    else:
        mean, std = _statistics(source.train) if source.image_size is not None else (MEAN, STD)
    return Transform(
        kind="digit" if source.name == "digits" else "photo",
        input_size=size,
        mean=mean,
        std=std,
        interpolation="bilinear" if like is None else like.interpolation,
        crop_pct=1.0 if source.image_size is not None else 0.875 if like is None else like.crop_pct,
        fit=fit or _usual_fit(source),
    )


def _usual_fit(source: Source) -> Fit:
    """As images of one size are brought to another in memory; square ones, which need no fit, are "crop"."""
    size = source.image_size
    return "crop" if size is None or size[1] == size[2] else "squash"


def tile_counts(split: Samples) -> IntArray:
    """How many tiles cover each image, (N,); one whose size is not known yet is decoded."""
    if isinstance(split, Chosen):
        sizes = tile_counts(split.samples)
        return sizes[split.rows]
    if isinstance(split, ImageFileSet):
        known = split.sizes
    elif isinstance(split, ImageSet):
        known = np.tile(np.array(split.images.shape[-2:], dtype=np.int64), (len(split), 1))
    else:
        known = np.zeros((len(split), 2), dtype=np.int64)
    counts = [
        count_tiles(height, width) if height else count_tiles(*split.image(row).shape[1:])
        for row, (height, width) in enumerate(known.tolist())
    ]
    return np.array(counts, dtype=np.int64)


def _statistics(split: Samples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, of images in memory."""
    # Evenly spread, since samples often lie class by class.
    chosen = range(0, len(split), max(1, len(split) // MOST_MEASURED))
    images: Tensor = torch.stack([split.image(index) for index in chosen]).float() / 255.0
    mean, std = images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3)).clamp(min=1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())
