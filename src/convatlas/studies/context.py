"""Where a study works: its knobs, its data, and trainings that are done once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal

import numpy as np
import torch
from torch import nn

from convatlas.data.sets import Chosen, ImageSet, Samples, Source, stratified_mask
from convatlas.data.sources import load_source
from convatlas.data.transforms import Transform, read_transform
from convatlas.metrics.classification import Evaluation
from convatlas.models.registry import create_model
from convatlas.runs.run import RECORD, Run, machine, open_run, versions
from convatlas.studies.report import write_study
from convatlas.studies.study import KnobsT, Study, TrainingKnobs, find_study
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import EvalTransform, evaluate
from convatlas.weights.files import read_safetensors_metadata, read_weights

ModelFactory = Callable[[], nn.Module]
"""Makes a network of a study's own, with fresh weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A network after its training.

    Attributes:
        run: the training.
        net: with the weights of its end, in evaluation mode.
        transform: brings pixels to what it was trained on: `transform.normalise(uint8 images)`.
    """

    run: Run
    net: nn.Module
    transform: Transform

    @property
    def test_error(self) -> float:
        """Share of the test images that are classified wrongly, in %."""
        return 100.0 * (1.0 - self.run.test_accuracy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyContext(Generic[KnobsT]):
    """What a study is given to work with.

    Attributes:
        knobs: of the preset, as turned by the user.
        runs: folder of the trainings, shared by all studies.
        log: tells the user a line.
        reused: seconds that each training took which was there already.
    """

    knobs: KnobsT
    runs: Path
    log: Callable[[str], None]
    reused: list[float] = dataclasses.field(default_factory=list[float])

    @property
    def seeds(self) -> range:
        """The seeds to work with."""
        return range(self.knobs.first_seed, self.knobs.first_seed + self.knobs.seeds)

    @cached_property
    def source(self) -> Source:
        """The data, cut down as the knobs say."""
        knobs = self.knobs
        if not isinstance(knobs, TrainingKnobs):
            raise TypeError("this study has no data: its knobs are not `TrainingKnobs`")
        source = load_source(knobs.data)
        return cut_down(source, knobs) if knobs.images or knobs.test_images or knobs.px else source

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return 3 if self.source.image_size is None else self.source.image_size[0]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.source.class_names)

    def train(
        self,
        network: str | ModelFactory,
        *,
        seed: int,
        label: str = "",
        model: Mapping[str, Any] | None = None,
        recipe: str | None = None,
        **settings: Any,
    ) -> Trained:
        """Trains a network through the ordinary training, or takes the run that is there already.

        Args:
            network: name in the registry, or what makes a network of the study's own; that is called
                with torch's random numbers at `seed`.
            seed: of weights, order and augmentation.
            label: names a network of the study's own, with all that tells it from others.
            model: fields of the config to change, for a name in the registry.
            recipe: name of the recipe; None for the network's own, or "modern" for one without.
            settings: fields of the recipe to change.

        Returns:
            The finished run with its network. A run that was stopped is resumed.
        """
        asked = {
            "network": network if isinstance(network, str) else label,
            "model": dict(model or {}),
            "recipe": recipe,
            "settings": settings,
            "data": self.source.fingerprint,
        }
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:10]
        folder = self.runs / f"{asked['network']}-{digest}-seed{seed}"
        started = time.perf_counter()
        net = self._build(network, seed, dict(model or {}))
        there = (folder / RECORD).is_file() and open_run(folder).state == "finished"
        run = open_run(folder) if there else self._work(network, net, folder, seed, model, recipe, settings)
        if there:
            self.reused.append(run.record["result"]["seconds"])
        net.load_state_dict(read_weights(run.weights))
        transform = read_transform(read_safetensors_metadata(run.weights)["transform"])
        trained = Trained(run=run, net=net.eval(), transform=transform)
        how = "was there" if there else f"{time.perf_counter() - started:.0f} s"
        self.log(f"{folder.name}: test error {trained.test_error:.2f} % ({how})")
        return trained

    def _build(self, network: str | ModelFactory, seed: int, model: dict[str, Any]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if not isinstance(network, str):
                return network()
            return create_model(network, num_classes=self.num_classes, in_chans=self.in_chans, **model)

    def _work(
        self,
        network: str | ModelFactory,
        net: nn.Module,
        folder: Path,
        seed: int,
        model: Mapping[str, Any] | None,
        recipe: str | None,
        settings: dict[str, Any],
    ) -> Run:
        from convatlas.training.train import resume, train

        ours = None if isinstance(network, str) else net
        if (folder / RECORD).is_file():
            return resume(folder, network=ours, data=self.source, progress=False)
        return train(
            network if isinstance(network, str) else net,
            data=self.source,
            recipe=recipe,
            seed=seed,
            out=folder.parent,
            name=folder.name,
            progress=False,
            model=None if ours is not None else model,
            keep=1,
            **settings,
        )

    def evaluate(
        self, trained: Trained, split: Literal["train", "test"] = "test", *, net: nn.Module | None = None
    ) -> Evaluation:
        """Measures a network on the whole of a split of the data, without augmentation.

        Args:
            trained: as `train` gave it.
            split: of the source.
            net: another network for the same images, for example the trained one with a part missing.
        """
        samples = self.source.train if split == "train" else self.source.test
        return evaluate(
            trained.net if net is None else net,
            samples,
            EvalTransform(trained.transform.mean, trained.transform.std),
            num_classes=self.num_classes,
            ranks=Ranks(torch.device("cpu")),
        )


def cut_down(source: Source, knobs: TrainingKnobs) -> Source:
    """The source with as many images, of such a size, as the knobs say.

    Raises:
        ValueError: it has fewer images, or its images have no one size that could be changed.
    """
    train = _some(source.train, knobs.images, "images", source.name)
    test = _some(source.test, knobs.test_images, "test_images", source.name)
    size = source.image_size
    if knobs.px:
        if size is None:
            raise ValueError(f"`px`={knobs.px}; only images in memory are resized, and {source.name} is not")
        train, test, size = _resized(train, knobs.px), _resized(test, knobs.px), (size[0], knobs.px, knobs.px)
    facts = f"{source.fingerprint} {knobs.images} {knobs.test_images} {knobs.px}"
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return dataclasses.replace(source, train=train, test=test, image_size=size, fingerprint=digest)


def _some(split: Samples, count: int, knob: str, name: str) -> Samples:
    """The same share of each class, `count` images in all; all for 0."""
    if count == 0:
        return split
    if count > len(split):
        raise ValueError(f"`{knob}`={count}; {name} has {len(split):,}")
    mask = stratified_mask(split.labels, share=count / len(split), seed=0)
    if isinstance(split, ImageSet):
        return ImageSet(split.images[mask], split.labels[mask])
    return Chosen(split, np.flatnonzero(mask.numpy()), split.labels[mask])


def _resized(split: Samples, px: int) -> ImageSet:
    images = torch.stack([split.image(index) for index in range(len(split))]).float()
    small = nn.functional.interpolate(images, size=(px, px), mode="bilinear", antialias=True)
    return ImageSet(small.round().clamp(0.0, 255.0).to(torch.uint8), split.labels)


def run_study(
    name: str,
    *,
    preset: str = "quick",
    out: str | Path = "studies",
    log: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> tuple[Path, dict[str, Any]]:
    """Runs a study and writes its report.

    Args:
        name: of the study.
        preset: "quick", "standard" or "full".
        out: folder for the trainings (`runs`) and the reports.
        log: is told a line for each training.
        settings: knobs to turn.

    Returns:
        The folder of the report, and the record that `study.json` holds.

    Raises:
        UnknownNameError: no such study, preset or knob; names the nearest.
        ValueError: a value is out of its range.
    """
    study: Study[Any] = find_study(name)
    knobs = study.knobs(preset, settings)
    started = time.perf_counter()
    ctx = StudyContext(knobs=knobs, runs=Path(out) / "runs", log=log)
    outcome = study.run(ctx)
    record = {
        "preset": preset,
        "knobs": dataclasses.asdict(knobs),
        "command": _command(name, preset, settings),
        "seconds": round(time.perf_counter() - started + sum(ctx.reused), 1),
        "machine": machine(torch.get_num_threads()),
        "versions": versions(),
    }
    folder = Path(out) / name / preset
    return folder, write_study(folder, study, record, outcome)


def _command(name: str, preset: str, settings: Mapping[str, Any]) -> str:
    turned = [shlex.quote(f"{key}={json.dumps(value)}") for key, value in settings.items()]
    return " ".join([f"convatlas study run {name} --preset {preset}", *(f"--set {item}" for item in turned)])
