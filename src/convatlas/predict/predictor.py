"""Images in, predictions out: a network with its transform and class names, read ahead and run in batches."""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.data.transforms import Transform
from convatlas.devices import find_device
from convatlas.engines.backend import Precision
from convatlas.engines.exported import ExportedNetwork, further_files, open_exported
from convatlas.metrics.probabilities import Outputs, check_outputs, to_logits
from convatlas.models.network import Network, check_count
from convatlas.predict.calibration import read_calibration
from convatlas.predict.confidence import Confidence
from convatlas.predict.engine_policy import EngineName, Workload, choose_engine
from convatlas.predict.inputs import Item, find_items
from convatlas.predict.outputs import Prediction, Skipped
from convatlas.predict.prefetch import Batch, read_batches, usable_cores
from convatlas.predict.progress import watched
from convatlas.predict.reading import prepared
from convatlas.summary import Summary

if TYPE_CHECKING:
    from convatlas.engines.engine import Engine, Report

_Answer = tuple[tuple[tuple[str, float], ...], tuple[str, ...] | None, bool | None]
"""The most likely classes with their probabilities, the set of classes, and whether it is none of them."""
TOP = 3
"""Classes that are named where the user says no number."""
CALIBRATION_IMAGES = 256


class Predictor(Summary, nn.Module):
    """Says what is on images.

    Args:
        network: gives logits (B, K) for images (B, C, H, W); it is set to evaluation mode.
        transform: from a PIL image to (C, H, W), a `Transform` or any function; None for the network's own.
        class_names: one for each logit; None for the network's own, or numbers where it has none.
        engine: "eager" runs the network as it is; "auto" finds the fastest engine on this machine, which
            takes up to a minute the first time and is remembered. None for "auto" where that answers the
            workload sooner, or where the precision is lower; else "eager".
        workload: images that are going to be predicted: how many, or a `Workload` that names them; None where
            it is not known.
        precision: the lowest that the engine found by "auto" may compute in.
        calibration: images, as `predict` takes them, or a `Source` or a data set by its name, on which
            "int8" is calibrated and checked; up to 256 are used.
        batch_size: images that go through the network together.
        workers: threads that read images; None for one a core.
        device: where the network runs; None for the first GPU, or the processor where there is none.
        outputs: whether the network gives "logits" or "probabilities"; "auto" looks at the numbers: rows of a
            distribution (none below 0, a sum of 1) are probabilities.
        exact: decode each JPEG at its full size. Without, one with at least four times the px that the
            transform resizes it to is decoded at a half, a quarter or an eighth, five times as fast; that
            moves probabilities by up to a few hundredths.

    Attributes:
        network: as given.
        transform: as given.
        class_names: a name for each logit.
        confidence: thresholds by which answers get sets of classes and images of no class are named; with it,
            probabilities are at its temperature. None for neither.

    Shape: x (B, C, H, W), as the transform gives it -> (B, K).

    Raises:
        ValueError: there is no transform, the class names do not fit, or an option is out of its range.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        transform: Callable[[Any], Tensor] | None = None,
        class_names: Sequence[str] | None = None,
        engine: EngineName | None = None,
        workload: Workload | int | None = None,
        precision: Precision = "fp32",
        calibration: Any = None,
        batch_size: int = 32,
        workers: int | None = None,
        device: str | torch.device | None = None,
        exact: bool = False,
        outputs: Outputs = "auto",
    ) -> None:
        super().__init__()
        transform = getattr(network, "transform", None) if transform is None else transform
        if transform is None:
            raise ValueError("the network has no `transform`; load it with `convatlas.load`, or give one")
        if precision == "int8" and calibration is None:
            raise ValueError("`precision`='int8' needs `calibration`: images like those to come")
        check_outputs(outputs)
        check_count("batch_size", batch_size, least=1)
        check_count("workers", 1 if workers is None else workers, least=1)
        device = "cpu" if isinstance(network, ExportedNetwork) else device
        self.device = find_device(None if device is None else str(device))
        # Channels-last is how images are read, and the faster order nearly everywhere.
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.eval()
        self.transform = transform
        self._engine_name: EngineName = choose_engine(
            engine,
            self.network,
            transform,
            workload if isinstance(workload, Workload) else Workload(workload),
            precision=precision,
            batch_size=batch_size,
            device=self.device,
        )
        self.precision: Precision = precision
        self.calibration = calibration
        self.batch_size = batch_size
        self.workers = usable_cores() if workers is None else workers
        self.exact = exact
        self.outputs: Outputs = outputs
        self.confidence: Confidence | None = None
        self._engines: dict[tuple[int, ...], Engine] = {}
        self.class_names = self._names(class_names)

    def _title(self) -> str:
        network = self.network
        return f"Predictor with {getattr(network, 'name', '') or type(network).__name__}"

    def _facts(self) -> dict[str, object]:
        shown = ", ".join(self.class_names[:5]) + (", ..." if len(self.class_names) > 5 else "")
        facts: dict[str, object] = {"classes": f"{len(self.class_names):,}: {shown}"}
        if isinstance(self.transform, Transform):
            facts["input"] = "x".join(map(str, self.transform.input_size))
        return facts | {"engine": self.engine, "device": self.device}

    def forward(self, x: Tensor) -> Tensor:
        """Logits a batch as the transform gives it, without gradients."""
        return self._logits(x, 1 if len(x) == 1 else self.batch_size)

    def predict(
        self, images: Any, *, top: int | None = None, fps: float | None = 1.0, progress: bool | None = None
    ) -> list[Prediction | Skipped]:
        """Says what is on images.

        Args:
            images: a file, a folder (with all below it), a pattern such as "photos/*.jpg", a film, "-" for
                standard input, a PIL image, an array (H, W, 3) or tensor (3, H, W) of uint8 or of floats in
                [0, 1], a batch of these, or an iterable of any of them.
            top: how many classes to name; None for 3, or all where there are fewer.
            fps: frames a second that are taken from a film; None for all.
            progress: whether to show a bar; None for where standard error is a terminal, and in a notebook.

        Returns:
            An `Prediction` for each image, in order, or a `Skipped` that says why there is none.

        Raises:
            ValueError: `top` or `fps` is out of its range, or a package for films is missing.
            TypeError: `images` is none of these.
        """
        results = self.stream(images, top=top, fps=fps)
        return list(watched(results, progress=progress))

    def stream(
        self, images: Any, *, top: int | None = None, fps: float | None = 1.0
    ) -> Iterator[Prediction | Skipped]:
        """The same as `predict`, one by one, for more images than memory holds predictions."""
        top = self.check(top, fps)
        return self._one_or_many(find_items(images, fps), top)

    def stream_items(self, items: Iterable[Item], top: int) -> Iterator[Prediction | Skipped]:
        """Predictions images that were found already, in order, one for each, by the engine for many."""
        return self._stream(items, top, self.batch_size)

    def _one_or_many(self, items: Iterator[Item], top: int) -> Iterator[Prediction | Skipped]:
        """One image has an engine of its own; a last one, after others, is not worth the search for it."""
        head = list(itertools.islice(items, 2))
        batch_size = 1 if len(head) == 1 else self.batch_size
        yield from self._stream(itertools.chain(head, items), top, batch_size)

    def _stream(self, items: Iterable[Item], top: int, batch_size: int) -> Iterator[Prediction | Skipped]:
        for batch in self._read(items):
            yield from self._predictions(batch, top, batch_size)

    def _read(self, items: Iterable[Item]) -> Iterator[Batch[Tensor]]:
        on_gpu = self.device.type != "cpu"  # It normalises faster, and takes bytes faster.
        prepare = functools.partial(prepared, transform=self.transform, exact=self.exact, as_bytes=on_gpu)
        return read_batches(items, prepare, self.batch_size, self.workers)

    def _stacked(self, images: Sequence[Tensor]) -> Tensor:
        """A batch, normalised, on the device."""
        # By numpy: torch would take several threads for it, from those that read.
        views = [view for image in images for view in (image if image.dim() == 4 else (image,))]
        rows = np.stack([view.permute(1, 2, 0).numpy() for view in views])
        return self.normalise(torch.from_numpy(rows).to(self.device).permute(0, 3, 1, 2))

    def normalise(self, images: Tensor) -> Tensor:
        """Brings images (B, C, H, W) to what the network takes, where they are still bytes."""
        if images.dtype == torch.uint8 and isinstance(self.transform, Transform):
            return self.transform.normalise(images)
        return images

    def check(self, top: int | None, fps: float | None) -> int:
        """Refuses what `predict` cannot do.

        Returns:
            How many classes to name: `top`, or 3 where it is None, fewer where there are fewer.

        Raises:
            ValueError: as `predict`.
        """
        if top is None:
            top = min(TOP, len(self.class_names))
        if not 1 <= top <= len(self.class_names):
            raise ValueError(f"`top`={top}; expected 1 to {len(self.class_names)}, the number of classes")
        if fps is not None and not 0.0 < fps < float("inf"):
            raise ValueError(f"`fps`={fps!r}; expected frames a second above 0, or None for all")
        return top

    def on(self, device: str) -> Predictor:
        """A copy on another device; a network in a file is opened anew."""
        network = self.network
        copied = Predictor(
            open_exported(network.path) if isinstance(network, ExportedNetwork) else copy.deepcopy(network),
            transform=self.transform,
            class_names=self.class_names,
            engine=self.engine,
            precision=self.precision,
            calibration=self.calibration,
            batch_size=self.batch_size,
            device=device,
            exact=self.exact,
            outputs=self.outputs,
        )
        copied.confidence = self.confidence
        return copied

    def fingerprint(self) -> str:
        """Tells predictors that predict differently apart: SHA-256 of weights, transform and class names."""
        known = isinstance(self.transform, Transform)
        digest = hashlib.sha256(repr((self.transform if known else "", self.class_names)).encode())
        if isinstance(self.network, ExportedNetwork):
            for path in (self.network.path, *further_files(self.network.path)):
                digest.update(path.read_bytes() if path.is_file() else b"")
        if self.confidence is not None:
            digest.update(f"{self.confidence.coverage} {self.confidence.unknown}".encode())
        for name, tensor in self.network.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _logits(self, x: Tensor, batch_size: int) -> Tensor:
        with torch.inference_mode():
            return to_logits(self._engine(x, batch_size)(x.to(self.device)), self.outputs)

    def _predictions(self, batch: Batch[Tensor], top: int, batch_size: int) -> Iterator[Prediction | Skipped]:
        found = self._scored(batch.pixels, top, batch_size)
        for place, item in enumerate(batch.items):
            if place in found:
                top_classes, classes, unknown = found[place]
                yield Prediction(item.name, top_classes, item.frame, item.seconds, classes, unknown)
            else:
                reason = batch.reasons.get(place, f"{item.name}: the network's logits are NaN")
                yield Skipped(item.name, reason, item.frame, item.seconds)

    def _scored(self, pixels: dict[int, Tensor], top: int, batch_size: int) -> dict[int, _Answer]:
        """The most likely classes of each image whose logits are numbers."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, image in pixels.items():
            by_shape.setdefault(tuple(image.shape), []).append(place)
        found: dict[int, _Answer] = {}
        for places in by_shape.values():
            images = self._stacked([pixels[place] for place in places])
            shares = self._shares(images, len(places), batch_size)
            if self.confidence is not None:
                shares = self.confidence.tempered(shares)
            judged = self._judged(shares, images)
            best, classes = shares.topk(top)
            for place, row, names, (those, unknown) in zip(
                places, best.tolist(), classes.tolist(), judged, strict=True
            ):
                if row[0] == row[0]:  # NaN is not itself.
                    named = tuple((self.class_names[k], p) for k, p in zip(names, row, strict=True))
                    found[place] = (named, those, unknown)
        return found

    def _judged(self, shares: Tensor, images: Tensor) -> list[tuple[tuple[str, ...] | None, bool | None]]:
        """For each image its set of classes, and whether it is of none; None for what is not asked for."""
        how, count = self.confidence, len(shares)
        classes: list[tuple[str, ...] | None] = [None] * count
        unknown: list[bool | None] = [None] * count
        if how is not None and how.coverage is not None:
            classes = [tuple(self.class_names[k] for k in row) for row in how.sets(shares.cpu())]
        if how is not None and how.unknown is not None:
            unknown = list(how.is_unknown(shares.cpu(), self._features(images, count)))
        return list(zip(classes, unknown, strict=True))

    def _features(self, images: Tensor, count: int) -> Tensor | None:
        """What goes into the last layer, (N, C); None where no distance is looked at."""
        network = self.network
        if self.confidence is None or not self.confidence.known.numel() or not isinstance(network, Network):
            return None
        with torch.inference_mode():
            found = [
                network.forward_head(network.forward_features(part.to(self.device)), pre_logits=True)
                for part in images.split(self.batch_size)
            ]
        return torch.cat(found).float().cpu().view(count, len(images) // count, -1).mean(dim=1)

    def _shares(self, images: Tensor, count: int, batch_size: int) -> Tensor:
        """Probabilities (N, K) of N images, each of which has as many views: the mean over these."""
        parts = images.split(batch_size) if len(images) > count else (images,)
        logits = torch.cat([self._logits(part, batch_size) for part in parts])
        return logits.float().softmax(dim=1).view(count, -1, logits.shape[1]).mean(dim=1)

    @property
    def engine(self) -> EngineName:
        """What runs the network, "eager" or "auto"; `choose_engine` decides when the predictor is made."""
        return self._engine_name

    @property
    def reports(self) -> tuple[Report, ...]:
        """How each engine in use was chosen; none before the first image."""
        return tuple(engine.report for engine in self._engines.values())

    def __getstate__(self) -> dict[str, Any]:
        """Engines stay behind: they belong to a process."""
        return self.__dict__ | {"_engines": {}}

    def _engine(self, x: Tensor, batch_size: int) -> Callable[[Tensor], Tensor]:
        """What runs such a batch: the network, or the engine for so many images."""
        if self.engine == "eager":
            return self.network
        _, *size = x.shape
        shape = (batch_size, *size)
        if shape not in self._engines:
            from convatlas.engines.optimize import optimize

            self._engines[shape] = optimize(
                self.network,
                (size[0], size[1], size[2]),
                shape[0],
                self.precision,
                calibration=self._calibration_images(),
            )
        return self._engines[shape]

    def _calibration_images(self) -> Tensor | None:
        """The images for calibration, as the network sees them."""
        if self.calibration is None:
            return None
        return read_calibration(self.calibration, self.transform, CALIBRATION_IMAGES)

    def _names(self, given: Sequence[str] | None) -> tuple[str, ...]:
        names = tuple(getattr(self.network, "class_names", ()) if given is None else given)
        count = getattr(self.network, "num_classes", len(names))
        if not names and given is None:
            return tuple(map(str, range(count)))
        if len(names) != count:
            raise ValueError(f"`class_names` names {len(names)} classes; the network has {count} logits")
        return names
