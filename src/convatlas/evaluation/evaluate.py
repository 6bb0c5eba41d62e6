"""Measuring networks on labelled images by the papers' protocols, one by one or as an ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.data.preprocessing import in_memory
from convatlas.data.sets import Samples, SkippedImage, Source, counted
from convatlas.data.sources import load_source
from convatlas.data.transforms import Transform
from convatlas.evaluation.crops import Average, Protocol, ProtocolName
from convatlas.evaluation.ensemble import load_weights_of
from convatlas.evaluation.labels import Match, Split, choose_split, match_classes
from convatlas.evaluation.logits import Member, Tables, make_member, measure_images
from convatlas.metrics.calibration import Calibration, ClassMetrics, by_class, calibrate
from convatlas.metrics.classification import Evaluation, count_predictions
from convatlas.metrics.error_analysis import interval
from convatlas.models.network import check_count
from convatlas.predict.engine_policy import EngineName
from convatlas.predict.load import open_network
from convatlas.predict.outputs import Skipped
from convatlas.predict.predictor import Precision, Predictor
from convatlas.predict.progress import watched
from convatlas.runs.run import RECORD, locate_data, locate_data_dir, open_run
from convatlas.summary import Summary

Subject = Predictor | str | Path


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Report(Summary):
    """What networks predict for labelled images, by a protocol.

    Attributes:
        networks: as they were named; several are an ensemble.
        data: name of the data set.
        split: of the data set.
        protocol: how images were shown.
        scales: px of the images' short side at each scale, for each network.
        views: views of each image that one network saw.
        class_names: a name for each logit.
        samples: the images; their labels are numbers in `class_names`.
        evaluation: counts, and for each image its prediction and its loss, the negated logarithm of the
            probability of the right class.
        seen: which of the images were measured, (N,) of bool.
        confidences: probability of each image's top prediction, (N,).
        calibration: whether these probabilities mean what they say.
        skipped: the images that cannot be used.
        notes: what a reader of the figures should know.
    """

    networks: tuple[str, ...]
    data: str
    split: Split
    protocol: Protocol
    scales: tuple[tuple[int, ...], ...]
    views: int
    class_names: tuple[str, ...]
    samples: Samples
    evaluation: Evaluation
    seen: Tensor
    confidences: Tensor
    calibration: Calibration
    skipped: tuple[SkippedImage, ...]
    notes: tuple[str, ...]

    def _title(self) -> str:
        return f"Evaluation of {' and '.join(self.networks)} on {self.data}"

    def _facts(self) -> dict[str, object]:
        found, (low, high) = self.evaluation, self.top1_interval
        facts: dict[str, object] = {
            "top-1": f"{self.top1:.2%} [{low:.2%}, {high:.2%}], {found.correct:,} of {found.count:,}"
        }
        if self.top5 is not None:
            facts["top-5"] = f"{self.top5:.2%}"
        return facts | {"loss": f"{found.loss:.4f}", "skipped": len(self.skipped)}

    @property
    def top1(self) -> float:
        """Share of correct top predictions, in [0, 1]."""
        return self.evaluation.accuracy

    @property
    def top5(self) -> float | None:
        """Share of images whose top five predictions hold the right one; None for fewer than six classes."""
        return self.evaluation.top5_accuracy

    @property
    def top1_interval(self) -> tuple[float, float]:
        """The 95 % interval of `top1`, by Wilson."""
        return interval(self.evaluation.correct, self.evaluation.count)

    @property
    def top5_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of `top5`, by Wilson."""
        top5 = self.evaluation.top5
        return None if top5 is None else interval(top5, self.evaluation.count)

    @property
    def classes(self) -> list[ClassMetrics]:
        """How each class is recognised."""
        return by_class(self.evaluation.confusion.numpy(), self.class_names)

    def record(self) -> dict[str, Any]:
        """The figures for JSON; classes without an image and a prediction are left out."""
        found = self.evaluation
        protocol = {"views": self.views, "scales": [list(scales) for scales in self.scales]}
        return {
            "networks": list(self.networks),
            "data": self.data,
            "split": self.split,
            "protocol": dataclasses.asdict(self.protocol) | protocol,
            "images": found.count,
            "top1": self.top1,
            "top1_correct": found.correct,
            "top1_interval": self.top1_interval,
            "top5": self.top5,
            "top5_correct": found.top5,
            "top5_interval": self.top5_interval,
            "log_loss": found.loss,
            "calibration": dataclasses.asdict(self.calibration),
            "classes": [entry.record() for entry in self.classes if entry.images or entry.predicted],
            "skipped": [dataclasses.asdict(entry) for entry in self.skipped],
            "notes": list(self.notes),
        }


def evaluate(
    networks: Subject | Sequence[Subject],
    data: str | Source | None = None,
    *,
    protocol: ProtocolName = "single",
    scales: Sequence[int] | None = None,
    flip: bool = False,
    average: Average = "probabilities",
    weights: str = "final",
    split: Split = "test",
    match: Match = "names",
    data_dir: str | Path | None = None,
    engine: EngineName | None = None,
    precision: Precision = "fp32",
    batch_size: int = 32,
    workers: int | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Report:
    """Measures a network, or an ensemble, on labelled images.

    Neither `batch_size` nor `workers` changes what is counted. An image that cannot be used is left out and
    listed.

    Args:
        networks: as `convatlas.load` takes it, or a predictor; several are an ensemble, whose members predict
            together, each with a transform of its own.
        data: a data set by name, or a `Source`; None for the one that the first run was trained on.
        protocol: "single", "10crop", "144crop", "dense" or "multiscale"; see `Protocol`.
        scales: px of the short side, for each scale; None for the protocol's own.
        flip: show mirror images, too.
        average: what is averaged over views and members, "probabilities" or "logits".
        weights: of a run: "final", "ema", "raw", "snapshots", "snapshots:N" or "step:N"; see
            `load_weights_of`.
        split: of the data: "test", "train" or "all".
        match: how classes of data and network are brought together: by "names", or by "index".
        data_dir: where small data sets lie, or are downloaded to.
        engine: as `Predictor` takes it; predictors that are given keep their own.
        precision: as `Predictor` takes it.
        batch_size: views that go through a network together.
        workers: threads that read images; None for one a core.
        device: as `Predictor` takes it.
        progress: whether to show a bar; None for where standard error is a terminal, and in a notebook.

    Raises:
        ValueError: the data do not fit the network, or an option is out of its range.
    """
    shown = Protocol(protocol, None if scales is None else tuple(scales), flip, average)
    check_count("batch_size", batch_size, least=1)
    given = [networks] if isinstance(networks, Predictor | str | Path) else list(networks)
    if not given:
        raise ValueError("`networks` is empty; expected at least one")
    notes: list[str] = []
    opened = [_opened(entry, weights, notes) for entry in given]
    source = _find_data(data, given[0], split, data_dir, notes)
    options: dict[str, Any] = {"engine": engine, "precision": precision, "workers": workers, "device": device}
    options["batch_size"] = batch_size
    predictors = [
        entry
        if isinstance(entry, Predictor)
        else Predictor(entry, workload=_views_to_come(entry, source, split, shown), **options)
        for entry in opened
    ]
    names = _shared_names(given, predictors)
    classes = match_classes(source.class_names, names, match)
    members = [make_member(each, shown, source.image_size is not None) for each in predictors]
    samples = choose_split(_as_trained(source, members), split, classes)
    tables = Tables(samples.labels, average)
    predictions = measure_images(
        members, samples, tables, names, batch_size=batch_size, workers=predictors[0].workers
    )
    results = watched(predictions, len(samples), progress=progress)
    bad = [SkippedImage(entry.image, entry.reason) for entry in results if isinstance(entry, Skipped)]
    if not tables.seen.any():
        raise ValueError(
            f"{source.name}: none of {counted(len(samples), 'image')} can be used: {bad[0].reason}"
        )
    transforms = [member.views.transform for member in members]
    return Report(
        networks=tuple(map(_name_of, given)),
        data=source.name,
        split=split,
        protocol=shown,
        scales=tuple(shown.scales_for(transform) for transform in transforms),
        views=max(map(shown.count_views, transforms)),
        class_names=names,
        samples=samples,
        evaluation=_counted(tables, len(names)),
        seen=tables.seen,
        confidences=tables.confidences,
        calibration=_calibrated(tables),
        skipped=(*source.skipped, *bad),
        notes=tuple(notes),
    )


def _opened(entry: Subject, weights: str, notes: list[str]) -> Predictor | nn.Module:
    if isinstance(entry, Predictor):
        if weights != "final":
            raise ValueError(f"`weights`={weights!r} goes with the folder of a run, not with a predictor")
        return entry
    if weights == "final":
        return open_network(entry)
    return load_weights_of(entry, weights, note=notes.append)


def _views_to_come(network: nn.Module, source: Source, split: Split, shown: Protocol) -> int | None:
    """About how many views a network is going to see; None where its engine cannot be chosen freely."""
    transform = getattr(network, "transform", None)
    if shown.is_dense or not isinstance(transform, Transform):
        return None
    parts = {"train": [source.train], "test": [source.test]}.get(split, [source.train, source.test])
    return sum(map(len, parts)) * shown.count_views(transform)


def _shared_names(given: Sequence[Subject], predictors: Sequence[Predictor]) -> tuple[str, ...]:
    names = predictors[0].class_names
    for entry, predictor in zip(given, predictors, strict=True):
        if predictor.class_names != names:
            raise ValueError(
                f"{_name_of(entry)} has other classes ({len(predictor.class_names)}) than "
                f"{_name_of(given[0])} ({len(names)}); an ensemble needs the same, in the same order"
            )
    return names


def _find_data(
    data: str | Source | None, first: Subject, split: Split, data_dir: str | Path | None, notes: list[str]
) -> Source:
    """The data that are asked for, or that a run was trained on."""
    if isinstance(data, Source):
        return data
    is_run = not isinstance(first, Predictor) and (Path(first) / RECORD).is_file()
    record = open_run(Path(str(first))).record if is_run else None
    if data is None and record is None:
        raise ValueError("`data`: say on which images, such as folder:PATH; only a run knows its own")
    if data is None and record is not None and not record.get("data", {}).get("named", True):
        raise ValueError(f"{first}: was trained on data from Python; give them as `data`")
    trained_on = None if record is None else locate_data(record)
    place = data_dir or (None if record is None else locate_data_dir(record))
    name = data or str(trained_on)
    source = load_source(
        name,
        data_dir=None if place is None else Path(place),
        # A split that is undone again: with halves, two images of a class are enough.
        test_share=0.5 if split == "all" and name != trained_on else 0.2,
        on_bad_image="skip",
    )
    if record is not None and source.name == trained_on:
        if record["data"]["fingerprint"] != source.fingerprint:
            notes.append(
                f"{source.name} has changed since the run was trained on it (its fingerprint differs): its "
                "test split may hold images that the run learnt from"
            )
        elif split != "test":
            notes.append(f"the split {split!r} holds images that the run was trained on")
    return source


def _as_trained(source: Source, members: Sequence[Member]) -> Source:
    """Images of one size brought to that of the network exactly as training does it."""
    views = members[0].views
    size, protocol = views.transform.input_size, views.protocol
    is_plain = protocol.name == "single" and protocol.scales is None and views.transform.crop_pct == 1.0
    if source.image_size is None or not is_plain or len(members) > 1 or size[1] != size[2]:
        return source
    return source if source.image_size[1:] == size[1:] else in_memory(source, size[1])


def _counted(tables: Tables, num_classes: int) -> Evaluation:
    return count_predictions(
        tables.labels, tables.losses, tables.predicted, tables.among5, tables.seen, num_classes
    )


def _calibrated(tables: Tables) -> Calibration:
    is_right = tables.predicted == tables.labels
    return calibrate(tables.confidences[tables.seen].numpy(), is_right[tables.seen].numpy())


def _name_of(entry: Subject) -> str:
    if isinstance(entry, Predictor):
        return str(getattr(entry.network, "name", "")) or type(entry.network).__name__
    return str(entry)
