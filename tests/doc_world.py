"""What the pages of the documentation name: data sets that are small, images, a film, two runs."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convatlas
from convatlas.data import small
from convatlas.native import CompilerError
from convatlas.training.cpu import library

CLASSES = ("goldfish", "tabby")
"""Of ImageNet, so that published weights know them."""

MODULE = """
from torch import nn


def make_net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
"""A network of the reader's own."""

FASHION = {"train": 64, "t10k": 16}


def small_data(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Makes the data sets small, so that trainings end in a second; nothing is downloaded."""
    cache.mkdir(parents=True, exist_ok=True)
    # Compiling C++ for this processor takes longer than all the rest.
    monkeypatch.setattr(library, "compiled", no_compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(small, "read_digits", read_few_digits)
    monkeypatch.setattr(small, "DEBIAN", {})
    monkeypatch.setattr(small, "_download", lambda name, root, expected: (fake_cifar(64), fake_cifar(20)))
    write_fashion(cache / "convatlas" / "data" / "FashionMNIST" / "raw")


def no_compiler(*_: object) -> None:
    """Stands for a machine without a C++ compiler."""
    raise CompilerError("there is no C++ compiler")


_READ = small.read_digits


def read_few_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve digits of each class."""
    images, labels = _READ()
    chosen = torch.cat([torch.nonzero(labels == label)[:12, 0] for label in range(10)])
    return images[chosen], labels[chosen]


def fake_cifar(count: int) -> SimpleNamespace:
    """Noise with CIFAR's shapes and classes."""
    data = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return SimpleNamespace(data=data, targets=[k % 10 for k in range(count)], classes=list("abcdefghij"))


def write_fashion(folder: Path) -> None:
    """Noise with Fashion-MNIST's shapes and files."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in FASHION.items():
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for stem, values in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{part}-{stem}.gz").write_bytes(gzip.compress(head + values.tobytes()))


def make_world(folder: Path) -> None:
    """Writes the files that the pages name into a folder."""
    pixels = np.full((60, 60), 255, dtype=np.uint8)
    pixels[10:50, 27:33] = 0
    for name in ("digit.png", "photo-of-a-digit.jpg"):
        Image.fromarray(pixels).save(folder / name)
    for parent in ("holiday", "cats", "photos", "images", "flowers"):
        classes = CLASSES if parent in ("photos", "images", "flowers") else ("",)
        for number, name in enumerate(classes):
            save_noise(folder / parent / name, 12 if parent == "flowers" else 4, seed=number)
    noise(0).save(folder / "cat.jpg")
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "mymodule.py").write_text(MODULE)
    write_film(folder / "film.mp4")
    for seed in (0, 1):
        convatlas.train("lenet5", data="digits", seed=seed, out=folder / "runs", epochs=2, progress=False)


def given_names() -> dict[str, Any]:
    """What a reader has: an image in three forms, a network and a data set of their own."""
    image = noise(0)
    array = np.asarray(image)
    digits = [(torch.zeros(1, 28, 28), label % 10) for label in range(20)]
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 10))
    return {
        "array": array,
        "pil_image": image,
        "tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
        "module": own,
        "dataset": digits,
        "other": digits,
    }


def noise(seed: int) -> Image.Image:
    """A soft image of noise, 80x64 px."""
    small_image = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small_image).resize((80, 64), Image.Resampling.BICUBIC)


def save_noise(folder: Path, count: int, *, seed: int) -> None:
    """So many images in a folder, which is made."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise(100 * seed + number).save(folder / f"{number}.jpg")


def write_film(path: Path) -> None:
    """Two frames, a second apart."""
    import av

    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for seed in range(2):
            for packet in stream.encode(av.VideoFrame.from_image(noise(seed))):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)
