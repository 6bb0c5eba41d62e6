"""Folders of small images, and a cache of their own for each test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., Path]
MakeFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where data sets are kept, instead of the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "convatlas"


@pytest.fixture
def make_image() -> MakeImage:
    """Writes an image of noise, another one for each seed, with sides in px that differ."""

    def make(path: Path, seed: int = 0, width: int = 24, height: int = 20, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (height, width) if mode == "L" else (height, width, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.fixture
def make_folder(tmp_path: Path, make_image: MakeImage) -> MakeFolder:
    """Writes a folder with `count` images for each class, JPEG and PNG by turns."""

    def make(
        where: str = "images", classes: tuple[str, ...] = ("cat", "dog", "owl"), count: int = 10
    ) -> Path:
        for number, name in enumerate(classes):
            for i in range(count):
                suffix = "jpg" if i % 2 else "png"
                make_image(tmp_path / where / name / f"{i:03d}.{suffix}", seed=1000 * number + i)
        return tmp_path / where

    return make
