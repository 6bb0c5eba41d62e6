"""Grey and coloured images in one data set that came from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.sets import ImageSet
from convatlas.data.sources import source_from


def image(colour: bool, value: int = 90) -> Image.Image:
    return Image.new("RGB" if colour else "L", (8, 8), (value, 20, 200) if colour else value)


def dataset(colours: list[bool]) -> list[tuple[Any, int]]:
    return [(image(colour), number % 2) for number, colour in enumerate(colours)]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([True, False] * 10, None),
        ([False] * 10 + [True] * 10, [True, False]),
        ([True] * 8, [False] * 4),
        ([False] * 8, [True] * 4),
    ],
    ids=["mixed", "mixed-both", "grey-test", "colour-test"],
)
def test_all_get_three_channels(train: list[bool], test: list[bool] | None) -> None:
    source = source_from(dataset(train), None if test is None else dataset(test))
    for part in (source.train, source.test):
        assert {part.image(index).shape[0] for index in range(len(part))} == {3}
    assert source.image_size is None or source.image_size[0] == 3


def test_grey_is_repeated() -> None:
    source = source_from(dataset([False, True] * 4), dataset([False, True]))
    assert torch.equal(source.test.image(0), torch.full((3, 8, 8), 90, dtype=torch.uint8))
    assert source.test.image(1)[:, 0, 0].tolist() == [90, 20, 200]


def test_one_coloured_image_that_no_probe_saw_becomes_its_luminance() -> None:
    colours = [False] * 400
    colours[3] = True
    source = source_from(dataset(colours), dataset([False] * 4))
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
    assert source.train.image(3).shape[0] == 1
    assert abs(int(source.train.image(3)[0, 0, 0]) - (0.299 * 90 + 0.587 * 20 + 0.114 * 200)) <= 1


def test_in_memory() -> None:
    grey = ImageSet(torch.full((6, 1, 8, 8), 7, dtype=torch.uint8), torch.tensor([0, 1] * 3))
    colour = ImageSet(torch.from_numpy(np.full((4, 3, 8, 8), 9, np.uint8)), torch.tensor([0, 1] * 2))
    source = source_from(grey, colour)
    assert source.train.image(0).shape == source.test.image(0).shape == (3, 8, 8)
