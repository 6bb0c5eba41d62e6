"""How far an answer may be believed: temperature, sets that hold the truth, and images of no class.

What it is computed from are images that training held back, kept beside the weights of a run.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convatlas.metrics.linear_probe import log_losses
from convatlas.weights.files import read_weights, write_safetensors

FILE = "confidence.safetensors"
MOST_KEPT = 2_000
"""Features of training images that distances are measured to, at most."""
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class HeldBack:
    """What a network answered to images that it did not learn from.

    Attributes:
        logits: (N, K).
        labels: (N,) of int64.
        features: what went into the last layer for each of them, (N, C); (N, 0) where that is not known.
        known: the same for images that were learnt from, (M, C).
    """

    logits: Tensor
    labels: Tensor
    features: Tensor
    known: Tensor

    def write(self, folder: Path) -> None:
        """Writes it into a run folder."""
        tensors = {
            name: getattr(self, name).contiguous() for name in ("logits", "labels", "features", "known")
        }
        write_safetensors(folder / FILE, tensors, {"temperature": f"{self.temperature:.6g}"})

    @property
    def temperature(self) -> float:
        """What logits are divided by so that probabilities mean what they say."""
        return fit_temperature(self.logits.double().numpy(), self.labels.numpy())


def read_held_back(folder: Path) -> HeldBack:
    """Reads what `HeldBack.write` wrote.

    Raises:
        ValueError: the run has held nothing back.
        WeightsError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(
            f"{folder}: held no images back to choose thresholds by; train with `--set validation=0.2`"
        )
    return HeldBack(**read_weights(path))


@dataclasses.dataclass(frozen=True, eq=False)
class Confidence:
    """Thresholds for the answers of one network.

    Attributes:
        temperature: as `HeldBack` has it.
        coverage: chance that the set of an answer holds the truth; None where no sets are asked for.
        least_share: classes of at least this probability are in the set.
        unknown: share of images of the classes that are refused by mistake; None to refuse none.
        least_confidence: an answer of a lower probability is refused.
        most_distance: an image farther than that from all that were learnt from is refused; infinite where
            features are not known.
        known: normalised features of images that were learnt from, (M, C).
    """

    temperature: float
    coverage: float | None
    least_share: float
    unknown: float | None
    least_confidence: float
    most_distance: float
    known: Tensor

    def tempered(self, shares: Tensor) -> Tensor:
        """Probabilities (B, K) at the temperature."""
        return (shares.clamp(min=torch.finfo(torch.float32).tiny).log() / self.temperature).softmax(dim=1)

    def sets(self, shares: Tensor) -> list[list[int]]:
        """For each row of tempered probabilities (B, K) the classes of its set, the most likely first."""
        found: list[list[int]] = []
        for row in shares:
            order = row.argsort(descending=True)
            count = max(1, int((row >= self.least_share).sum()))
            found.append(order[:count].tolist())
        return found

    def is_unknown(self, shares: Tensor, features: Tensor | None) -> list[bool]:
        """Whether each image is of none of the classes.

        Args:
            shares: tempered probabilities, (B, K).
            features: what went into the last layer, (B, C); None where that is not known.
        """
        refused = shares.max(dim=1).values < self.least_confidence
        if features is not None and self.known.numel():
            refused |= distances(features, self.known) > self.most_distance
        return refused.tolist()


def make_confidence(
    held: HeldBack, *, coverage: float | None = None, unknown: float | None = None
) -> Confidence:
    """Chooses thresholds by the images that were held back.

    Sets are those of split conformal prediction: a new image of the same kind has its class in the set with a
    probability of at least `coverage`, whatever the network. Of the images of the classes at most the share
    `unknown` is refused, half of it by confidence and half by distance.

    Args:
        held: what the network answered to them.
        coverage: in (0, 1); None for no sets.
        unknown: in (0, 1); None to refuse nothing.

    Raises:
        ValueError: a value is out of its range, or there are too few images for it.

    Source: Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers with Bounded Error
    Levels"; Guo et al. 2017, "On Calibration of Modern Neural Networks"; Sun et al. 2022,
    "Out-of-Distribution Detection with Deep Nearest Neighbors".
    """
    for name, value in (("coverage", coverage), ("unknown", unknown)):
        if value is not None and not 0.0 < value < 1.0:
            raise ValueError(f"`{name}`={value!r}; expected a share between 0 and 1, such as 0.95 or 0.05")
    temperature = held.temperature
    shares = (held.logits.double() / temperature).softmax(dim=1)
    least_share = 0.0
    if coverage is not None:
        scores = 1.0 - shares[torch.arange(len(shares)), held.labels].numpy()
        least_share = 1.0 - conformal_quantile(scores, coverage, "coverage")
    least, most, known = 0.0, math.inf, torch.empty(0)
    if unknown is not None:
        has_features = held.known.numel() > 0
        part = unknown / 2.0 if has_features else unknown
        least = -conformal_quantile(-shares.max(dim=1).values.numpy(), 1.0 - part, "unknown")
        if has_features:
            known = normalised(held.known)
            most = conformal_quantile(distances(held.features, known).double().numpy(), 1.0 - part, "unknown")
    return Confidence(temperature, coverage, least_share, unknown, least, most, known)


def conformal_quantile(scores: Floats, coverage: float, name: str) -> float:
    """The value that a new score keeps within with a probability of at least `coverage`.

    Args:
        scores: of images like those to come, (N,).
        coverage: in (0, 1).
        name: of the argument that asks for it, for the error.

    Raises:
        ValueError: there are too few images for so high a coverage.
    """
    rank = math.ceil((len(scores) + 1) * coverage)
    if rank > len(scores):
        needed = math.ceil(coverage / (1.0 - coverage))
        raise ValueError(
            f"`{name}`: {len(scores)} images were held back; {needed} are needed for {coverage:g}: "
            "train with a larger `validation`, or ask for less"
        )
    return float(np.sort(scores)[rank - 1])


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature, from 0.05 to 20, at which the mean loss of logits (N, K) is least."""
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        return float(log_losses(logits / math.exp(power), labels).mean())

    found = minimize_scalar(
        loss,
        bounds=(math.log(0.05), math.log(20.0)),
        method="bounded",
    )
    return math.exp(float(found.x))


def normalised(features: Tensor) -> Tensor:
    """Features (N, C) of length 1."""
    return torch.nn.functional.normalize(features.float(), dim=1)


def distances(features: Tensor, known: Tensor) -> Tensor:
    """One less the cosine to the nearest of normalised features (M, C): (N,)."""
    return 1.0 - (normalised(features) @ known.T).max(dim=1).values
