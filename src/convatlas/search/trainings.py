"""Evaluations as ordinary trainings: a run folder for each, found again by what makes its result."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convatlas.data.sets import Chosen, DataError, ImageSet, Samples, Source, stratified_mask
from convatlas.data.sources import load_source
from convatlas.runs.run import Run, RunError, open_run
from convatlas.search.architecture import Architecture, Space, Task
from convatlas.search.evaluators import training_seed
from convatlas.training.train import resume, train


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The data of a search.

    Attributes:
        search: candidates are trained on its `train` and measured on its `test`, the validation split.
        final: all training images, and the test images that are touched once.
    """

    search: Source
    final: Source

    @property
    def task(self) -> Task:
        """What networks are built for."""
        size = self.search.image_size or (3, 224, 224)
        return Task(size, len(self.search.class_names))


def load_split(
    data: str | Source, data_dir: str | Path | None, share: float, seed: int, train_images: int | None
) -> Split:
    """Loads the data, and keeps a share of each class apart for validation.

    Raises:
        DataError: it is too small for a validation split, or cannot be used.
    """
    source = load_source(data, data_dir=data_dir) if isinstance(data, str) else data
    labels = source.train.labels
    is_validation = stratified_mask(labels, share=share, seed=seed)
    counts = np.bincount(labels.numpy()[labels.numpy() >= 0], minlength=len(source.class_names))
    held = np.bincount(labels.numpy()[is_validation.numpy()], minlength=len(source.class_names))
    short = [i for i in range(len(source.class_names)) if held[i] < 1 or counts[i] - held[i] < 1]
    if short:
        raise DataError(
            f"data set {source.name}: class {source.class_names[short[0]]!r} has {counts[short[0]]} training "
            f"images, of which {share:.0%} is too small for a validation split; expected at least one to "
            "train on and one to validate on for each class"
        )
    train_rows = np.flatnonzero(~is_validation.numpy() & (labels.numpy() >= 0))
    if train_images is not None and train_images < len(train_rows):
        rest = labels[torch.from_numpy(train_rows)]
        chosen = stratified_mask(rest, share=train_images / len(train_rows), seed=seed + 1)
        train_rows = train_rows[chosen.numpy()]
    held_rows = np.flatnonzero(is_validation.numpy())
    digest = hashlib.sha256(f"{source.fingerprint} {share} {seed} {train_images}".encode()).hexdigest()
    search = dataclasses.replace(
        source,
        name=f"{source.name}, validation split",
        train=_shared(_chosen(source.train, train_rows)),
        test=_shared(_chosen(source.train, held_rows)),
        fingerprint=digest,
    )
    final = dataclasses.replace(source, train=_shared(source.train), test=_shared(source.test))
    return Split(search, final)


def _chosen(samples: Samples, rows: Any) -> Samples:
    index = torch.from_numpy(rows)
    if isinstance(samples, ImageSet):
        return ImageSet(samples.images[index], samples.labels[index])
    return Chosen(samples, rows, samples.labels[index])


def _shared(samples: Samples) -> Samples:
    """Images in memory are moved to where all worker processes see the same copy."""
    if isinstance(samples, ImageSet):
        samples.images.share_memory_()
        samples.labels.share_memory_()
    return samples


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingEvaluator:
    """Trains the architecture of a task.

    Attributes:
        space: of the architectures.
        split: the data.
        folder: where run folders lie.
        recipe: how networks are trained.
        settings: fields of the recipe that are changed.
    """

    space: Space
    split: Split
    folder: str
    recipe: str
    settings: Mapping[str, Any]

    def __call__(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Trains, or finds the training again: `value` is the accuracy on the validation (or test) part."""
        torch.set_num_threads(1)  # The result depends on it, and workers share the cores.
        final = task["arm"] == "retrain"
        found = Architecture(self.space, self.space.choices_of(task["text"]))
        seed = training_seed(task["seed"], found.key, int(task.get("repeat", -1)))
        run = self._run(found, int(task["epochs"]), seed, self.split.final if final else self.split.search)
        lines = [line for line in run.metrics() if "test_accuracy" in line]
        accuracies = [line["test_accuracy"] for line in lines]
        return {"value": run.test_accuracy, "accuracies": accuracies, "run": run.folder.name, "seed": seed}

    def _run(self, found: Architecture, epochs: int, seed: int, source: Source) -> Run:
        name, model = found.network()
        told = f"{found.key} {name} {model} {epochs} {seed} {source.fingerprint} "
        told += f"{self.recipe} {dict(self.settings)}"
        folder = Path(self.folder) / hashlib.sha256(told.encode()).hexdigest()[:16]
        if folder.exists():
            try:
                open_run(folder)
            except RunError:
                shutil.rmtree(folder)  # Killed before its record was written.
            else:
                return resume(folder, data=source, workers=0)
        settings: dict[str, Any] = {**self.settings, "epochs": epochs}
        return train(
            name,
            data=source,
            recipe=self.recipe,
            seed=seed,
            out=self.folder,
            name=folder.name,
            model=model,
            workers=0,
            keep=1,
            **settings,
        )
