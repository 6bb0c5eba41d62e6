"""What can be turned in a study. The values of a preset are part of its protocol."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from convatlas.models.network import check_count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """What can be turned in every study; each study adds its own.

    Attributes:
        seeds: number of seeds; a verdict needs at least three.
        first_seed: the seeds are this one and those that follow.
    """

    seeds: int = 5
    first_seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count is out of its range.
        """
        check_count("seeds", self.seeds, least=1)
        check_count("first_seed", self.first_seed, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingKnobs(Knobs):
    """What can be turned in every study that trains. All arms share these.

    Attributes:
        data: name of the data set.
        images: training images, the same share of each class; 0 for all.
        test_images: test images, the same share of each class; 0 for all.
        px: height and width that small images are brought to; 0 for their own.
        epochs: passes over the training images.
        recipe: how all arms are trained.
        schedule: of the learning rate: "recipe" for the recipe's own, else a kind such as "cosine".
        batch_size: images of a step.
        warmup: steps over which the learning rate rises from 0; ignored with the recipe's own schedule.
        flip: share of the training images that are mirrored.
        pad: px by which training images are shifted at most; 0 for none.
        grid: learning rates, rising, from which every arm takes its best by validation images.
        grow: how often the grid may grow by a rate at an end where an arm has its best, for all arms.
        tune_seeds: seeds of each trial; they are not those of the report.
        validation: share of the training images on which a learning rate is chosen.
        reach: test error in % that every arm must reach for a verdict.
    """

    data: str = "fashion-mnist"
    images: int = 0
    test_images: int = 0
    px: int = 0
    epochs: int = 1
    recipe: str = "resnet_cifar"
    schedule: str = "cosine"
    batch_size: int = 32
    warmup: int = 0
    flip: float = 0.0
    pad: int = 0
    grid: tuple[float, ...] = (0.02, 0.06, 0.2)
    grow: int = 2
    tune_seeds: int = 1
    validation: float = 0.2
    reach: float = 49.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count or share is out of its range, or the grid does not rise from above 0.
        """
        super().__post_init__()
        least = {"images": 0, "test_images": 0, "px": 0, "epochs": 1, "batch_size": 1, "warmup": 0, "pad": 0}
        for name, low in (least | {"grow": 0, "tune_seeds": 1}).items():
            check_count(name, getattr(self, name), least=low)
        if not self.grid or min(self.grid) <= 0.0 or list(self.grid) != sorted(set(self.grid)):
            raise ValueError(f"`grid`={list(self.grid)}; expected learning rates above 0 that rise")
        if not 0.0 < self.validation < 1.0:
            raise ValueError(f"`validation`={self.validation}; expected a share between 0 and 1, such as 0.2")
        if not 0.0 <= self.flip <= 1.0:
            raise ValueError(f"`flip`={self.flip}; expected a share of 0 to 1")
        if not 0.0 < self.reach <= 100.0:
            raise ValueError(f"`reach`={self.reach}; expected an error between 0 and 100, in %")


KnobsT = TypeVar("KnobsT", bound=Knobs)
KnobsT_co = TypeVar("KnobsT_co", bound=Knobs, covariant=True)
