"""What any network has to beat: the commonest class, neighbours, logistic regression on simple features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data.crops import with_channels
from convatlas.data.resize import resize
from convatlas.data.sets import Samples
from convatlas.metrics.linear_probe import Floats, Ints, cross_predict, fit_probe

MOST_SIDE = 32
"""Px a side that images are brought to."""
CELLS, ANGLES = 4, 9
"""Cells a side, and orientations of gradients, of the simple features."""
NEIGHBOURS = 5


def thumbnails(samples: Samples, rows: Ints) -> NDArray[np.float32]:
    """Images at 32x32 px, squashed: (N, C, 32, 32) in [0, 1], C being 1 where all are grey."""
    found: list[Tensor] = []
    for row in rows.tolist():
        image = samples.image(row)
        chans = 1 if image.shape[0] == 1 else 3
        found.append(resize(with_channels(image, chans), (MOST_SIDE, MOST_SIDE), "bilinear"))
    chans = max(image.shape[0] for image in found)
    stacked = torch.stack([with_channels(image, chans) for image in found])
    return (stacked.float() / 255.0).numpy()


def simple_features(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and deviation of colours, and orientations of gradients, in 4x4 cells: (N, D).

    The orientations are as in Dalal and Triggs 2005, "Histograms of Oriented Gradients for Human Detection",
    without overlapping blocks.

    Args:
        images: (N, C, H, W) in [0, 1], H and W multiples of 4.
    """
    count, chans, height, width = images.shape
    cells = images.reshape(count, chans, CELLS, height // CELLS, CELLS, width // CELLS)
    colours = [cells.mean(axis=(3, 5)).reshape(count, -1), cells.std(axis=(3, 5)).reshape(count, -1)]
    grey = images.mean(axis=1)
    down, right = np.gradient(grey, axis=(1, 2))
    length, angle = np.hypot(down, right), np.mod(np.arctan2(down, right), np.pi)
    place = np.minimum((angle / np.pi * ANGLES).astype(np.int64), ANGLES - 1)
    votes = (place[..., None] == np.arange(ANGLES)) * length[..., None]
    sums = votes.reshape(count, CELLS, height // CELLS, CELLS, width // CELLS, ANGLES).sum(axis=(2, 4))
    sums = sums / (np.linalg.norm(sums, axis=-1, keepdims=True) + 0.1)
    return np.concatenate([*colours, np.sqrt(sums).reshape(count, -1)], axis=1).astype(np.float32)


def regress(features: NDArray[Any], labels: Ints, num_classes: int, folds: list[Ints], seed: int) -> Ints:
    """The answers (N,) of logistic regression, each by one that was fitted without the image's fold."""
    strength = fit_probe(features, labels, num_classes, seed=seed).strength
    return cross_predict(features, labels, num_classes, folds, strength).argmax(axis=1)


def commonest(labels: Ints, num_classes: int, folds: list[Ints]) -> Ints:
    """The commonest class of the images outside each fold, as the answer to those in it: (N,)."""
    answers = np.zeros(len(labels), dtype=np.int64)
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        answers[rows] = np.bincount(labels[rest], minlength=num_classes).argmax()
    return answers


def neighbours(features: NDArray[Any], labels: Ints, num_classes: int, folds: list[Ints]) -> Ints:
    """What most of the 5 nearest images outside the fold are, the nearest deciding where they are even: (N,).

    Nearness is the cosine of what remains when the mean is taken off.

    Args:
        features: (N, D).
        labels: (N,).
        num_classes: K.
        folds: rows of each fold.
    """
    centred: Floats = np.asarray(features, dtype=np.float64).reshape(len(labels), -1)
    centred = centred - centred.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-12
    answers = np.zeros(len(labels), dtype=np.int64)
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        near = np.argsort(-(centred[rows] @ centred[rest].T), axis=1, kind="stable")[:, :NEIGHBOURS]
        found = labels[rest][near]
        # Each vote counts a little less than the one before it.
        votes = np.zeros((len(rows), num_classes))
        for rank in range(found.shape[1]):
            votes[np.arange(len(rows)), found[:, rank]] += 1.0 - 0.01 * rank
        answers[rows] = votes.argmax(axis=1)
    return answers
