"""Small picture folders made from the real photographs that scikit-image and scikit-learn bring along.

A class is a photograph; its images are windows of it at random places and scales, changed in colour, blur
and noise. Windows to learn from and windows to test on come from different parts of the photograph, so that
no pixel is in both.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn
from PIL import Image, ImageFilter

Array = np.ndarray[Any, Any]
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
PHOTOS = {
    **{name: SKIMAGE / f"{name}.png" for name in ("coffee", "camera", "astronaut", "gravel", "brick", "ihc")},
    **{
        name: SKIMAGE / f"{name}.png"
        for name in ("grass", "moon", "coins", "chelsea", "motorcycle_left", "page")
    },
    **{name: SKIMAGE / f"{name}.jpg" for name in ("rocket", "retina", "hubble_deep_field")},
    **{name: SKLEARN / f"{name}.jpg" for name in ("flower", "china")},
}


@dataclasses.dataclass(frozen=True)
class PhotoTask:
    """Windows of photographs.

    Attributes:
        seed: of everything.
        classes: names of photographs.
        train: windows of each class to learn from.
        test: windows of each class to test on.
        hardness: from 0 to 1: how small the windows are, and how much they are changed.
    """

    seed: int
    classes: tuple[str, ...]
    train: int
    test: int
    hardness: float


def random_task(seed: int, test: int = 60) -> PhotoTask:
    """A task with 4 to 10 classes and 8 to 60 images of each to learn from."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 11))
    classes = tuple(sorted(rng.choice(sorted(PHOTOS), count, replace=False).tolist()))
    train = int(np.exp(rng.uniform(np.log(8), np.log(60))))
    return PhotoTask(seed, classes, train, test, float(rng.uniform(0.4, 1.0)))


def make_windows(task: PhotoTask) -> dict[str, tuple[list[Array], list[str]]]:
    """Images (H, W, 3) of uint8 and their classes, for "train" and "test"."""
    found: dict[str, tuple[list[Array], list[str]]] = {"train": ([], []), "test": ([], [])}
    rng = np.random.default_rng([task.seed, 1])
    for name in task.classes:
        photo = np.asarray(Image.open(PHOTOS[name]).convert("RGB"))
        # Four strips along the longer side are learnt from and tested on in turn.
        parts = np.array_split(photo, 4, axis=int(photo.shape[1] > photo.shape[0]))
        chosen = rng.permutation(4)
        for split, strips, count in (("train", chosen[:2], task.train), ("test", chosen[2:], task.test)):
            for _ in range(count):
                found[split][0].append(_window(parts[int(rng.choice(strips))], rng, task.hardness))
                found[split][1].append(name)
    return found


def _window(strip: Array, rng: np.random.Generator, hardness: float) -> Array:
    least = min(strip.shape[:2])
    side = int(np.clip(least * rng.uniform(1.0 - 0.85 * hardness, 1.0 - 0.4 * hardness), 16, least))
    height, width = side, int(np.clip(side * rng.uniform(0.75, 1.33), 16, strip.shape[1]))
    top, left = (
        int(rng.integers(0, have - want + 1))
        for have, want in zip(strip.shape, (height, width), strict=False)
    )
    image = Image.fromarray(strip[top : top + height, left : left + width])
    image = image.resize((int(width * 96 / height) or 1, 96), Image.Resampling.BILINEAR)
    image = image.rotate(float(rng.uniform(-20, 20) * hardness), Image.Resampling.BILINEAR)
    if rng.random() < hardness:
        image = image.convert("L").convert("RGB")
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 2.5) * hardness)))
    values = np.asarray(image).astype(np.float64)
    values = (values - 128) * rng.uniform(1 - 0.6 * hardness, 1 + 0.3 * hardness) + 128
    values = (
        values + rng.uniform(-50, 50) * hardness + rng.normal(0, 30 * hardness * rng.random(), values.shape)
    )
    return np.clip(values, 0, 255).astype(np.uint8)


def write_task(task: PhotoTask, folder: Path) -> Path:
    """Writes a task as a folder with train and val, each with a folder for each class."""
    for split, (images, labels) in make_windows(task).items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / ("val" if split == "test" else "train") / label / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=92)
    return folder
