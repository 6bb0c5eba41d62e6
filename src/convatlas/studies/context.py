"""Where a study works: its knobs, its images, and trainings that are done once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

import torch
from torch import nn

from convatlas.data.sets import Source
from convatlas.data.sources import load_source
from convatlas.data.transforms import read_transform
from convatlas.metrics.classification import Evaluation
from convatlas.models.registry import create_model
from convatlas.studies.knobs import KnobsT, TrainingKnobs
from convatlas.studies.trainings import (
    Images,
    ModelFactory,
    Split,
    Trained,
    alone,
    cut_down,
    digest_of,
    find_finished,
    validation_source,
    work,
)
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import EvalTransform, evaluate
from convatlas.weights.files import read_safetensors_metadata, read_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyContext(Generic[KnobsT]):
    """What a study is given to work with.

    Attributes:
        knobs: of the preset, as turned by the user.
        runs: folder of the trainings, shared by all studies.
        log: tells the user a line.
        reused: seconds that each training took which was there already.
        used: names of the training folders that were used, in order.
    """

    knobs: KnobsT
    runs: Path
    log: Callable[[str], None]
    reused: list[float] = dataclasses.field(default_factory=list[float])
    used: list[str] = dataclasses.field(default_factory=list[str])

    @property
    def seeds(self) -> range:
        """The seeds to work with."""
        return range(self.knobs.first_seed, self.knobs.first_seed + self.knobs.seeds)

    @property
    def training(self) -> TrainingKnobs:
        """The knobs of a study that trains.

        Raises:
            TypeError: if the study has no data.
        """
        if not isinstance(self.knobs, TrainingKnobs):
            raise TypeError("this study has no data: its knobs are not `TrainingKnobs`")
        return self.knobs

    @cached_property
    def _sources(self) -> dict[tuple[int, bool], Source]:
        return {}

    def source_at(self, px: int, *, validation: bool = False) -> Source:
        """The images at another size.

        Args:
            px: height and width; 0 for the images' own.
            validation: the training images alone, a share of them as test split.
        """
        knobs, key = self.training, (px, validation)
        if key not in self._sources:
            if validation:
                self._sources[key] = validation_source(self.source_at(px), knobs.validation)
            else:
                loaded = load_source(knobs.data)
                self._sources[key] = cut_down(loaded, Images(knobs.images, knobs.test_images, px))
        return self._sources[key]

    @property
    def source(self) -> Source:
        """The images, cut down as the knobs say."""
        return self.source_at(self.training.px)

    @property
    def px(self) -> int:
        """Height of the images; 224 where they have several."""
        return 224 if self.source.image_size is None else self.source.image_size[1]

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return 3 if self.source.image_size is None else self.source.image_size[0]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.source.class_names)

    @property
    def chance(self) -> float:
        """Error of guessing, in %."""
        return 100.0 * (1.0 - 1.0 / self.num_classes)

    def train(
        self,
        network: str | ModelFactory,
        *,
        seed: int,
        label: str = "",
        model: Mapping[str, Any] | None = None,
        recipe: str | None = None,
        source: Source | None = None,
        **settings: Any,
    ) -> Trained:
        """Trains a network through the ordinary training, or takes the run that is there already.

        Args:
            network: name in the registry, or what makes a network of the study's own; that is called with
                torch's random numbers at `seed`.
            seed: of weights, order and augmentation.
            label: names a network of the study's own, with all that tells it from others.
            model: fields of the config to change, for a name in the registry.
            recipe: name of the recipe; None for the network's own, or "modern" for one without.
            source: images; None for those of the knobs.
            settings: fields of the recipe to change.

        Returns:
            The finished run with its network. A run that was stopped is resumed; one that another process is
            working on is waited for.

        Raises:
            TrainingError: if the loss is NaN or infinite.
            ValueError: if the stored run does not match its name.
        """
        source = self.source if source is None else source
        name = network if isinstance(network, str) else label
        asked = {
            "network": name,
            "model": dict(model or {}),
            "recipe": recipe,
            "settings": settings,
            "data": source.fingerprint,
        }
        folder = self.runs / f"{name}-{digest_of(asked)}-seed{seed}"
        started = time.perf_counter()
        net = self.build(network, seed, model)
        with alone(folder):
            run = find_finished(folder, asked)
            there = run is not None
            if run is None:
                options = {"recipe": recipe, **settings}
                if isinstance(network, str):
                    options["model"] = model
                run = work(network, net, folder, source=source, seed=seed, asked=asked, options=options)
        if there:
            self.reused.append(run.record["result"]["seconds"])
        self.used.append(folder.name)
        net.load_state_dict(read_weights(run.weights))
        transform = read_transform(read_safetensors_metadata(run.weights)["transform"])
        trained = Trained(run=run, net=net.eval(), transform=transform, source=source)
        how = "was there" if there else f"{time.perf_counter() - started:.0f} s"
        self.log(f"{folder.name}: error {trained.test_error:.2f} % ({how})")
        return trained

    def build(
        self, network: str | ModelFactory, seed: int, model: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """A network with the first weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if not isinstance(network, str):
                return network()
            return create_model(
                network, num_classes=self.num_classes, in_chans=self.in_chans, **(model or {})
            )

    def evaluate(
        self, trained: Trained, split: Split = "test", *, net: nn.Module | None = None
    ) -> Evaluation:
        """Measures a network on the whole of a split, without augmentation.

        Args:
            trained: as `train` gave it.
            split: of the source that it was trained on.
            net: another network for the same images, for example the trained one with a part missing.
        """
        samples = trained.source.train if split == "train" else trained.source.test
        return evaluate(
            trained.net if net is None else net,
            samples,
            EvalTransform(trained.transform.mean, trained.transform.std),
            num_classes=self.num_classes,
            ranks=Ranks(torch.device("cpu")),
        )

    def error(self, trained: Trained, split: Split = "test", *, net: nn.Module | None = None) -> float:
        """Wrong images of a split, in %; the arguments are those of `evaluate`."""
        return 100.0 * (1.0 - self.evaluate(trained, split, net=net).accuracy)
