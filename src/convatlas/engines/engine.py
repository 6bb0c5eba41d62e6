"""The chosen engine, behind one face, and the report on how it was chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convatlas.engines.backend import BackendConfig, BatchFn, Precision
from convatlas.engines.mixed import LayerCost, describe_mix


@dataclasses.dataclass(frozen=True)
class EngineResult:
    """What came of trying one engine in one setting.

    Attributes:
        engine: name.
        config: how it was used; None where it did not come so far.
        seconds: typical time of a batch; None where it was not measured.
        error: largest difference between logits relative to the network's largest; None if not compared.
        same_top: share of the images compared whose most likely class stays the same; None in the same case.
        note: why it was dropped; "" where it was not.
        layers: with int8 where all layers in int8 did not agree, each layer with its effect and its cost, the
            worst first, and whether it stayed in float.
    """

    engine: str
    config: BackendConfig | None = None
    seconds: float | None = None
    error: float | None = None
    same_top: float | None = None
    note: str = ""
    layers: tuple[LayerCost, ...] = ()

    @property
    def label(self) -> str:
        """Engine and setting in words."""
        config = self.config.describe() if self.config else ""
        return f"{self.engine} ({config})" if config else self.engine


@dataclasses.dataclass(frozen=True)
class Report:
    """How an engine was chosen.

    Attributes:
        network: its name or class.
        shape: B, C, H, W.
        precision: the lowest that was allowed.
        tolerance: largest relative error that was allowed.
        agreement: smallest share of same top classes that was allowed.
        threads: that may work on one batch.
        device: "cpu" or "cuda".
        machine: name of the chip.
        results: of everything that was tried: the chosen one (the simplest of those that are about as fast as
            the fastest), the others that were timed, from fast to slow, those whose latency was only
            estimated, the dropped.
        took: seconds from the question to the answer.
        remembered: whether the choice was made in an earlier call.
    """

    network: str
    shape: tuple[int, int, int, int]
    precision: Precision
    tolerance: float
    agreement: float
    threads: int
    device: str
    machine: str
    results: tuple[EngineResult, ...]
    took: float
    remembered: bool = False

    @property
    def chosen(self) -> EngineResult:
        """The trial of the engine in use."""
        return self.results[0]

    def __str__(self) -> str:
        """A table, for people."""
        batch, chans, height, width = self.shape
        plural = "" if self.threads == 1 else "s"
        how = "remembered; checked again" if self.remembered else "measured"
        lines = [
            f"{self.network}, {batch} x {chans}x{height}x{width}, {self.precision}, on {self.machine} "
            f"({self.device}, {self.threads} thread{plural}): {self.chosen.label}, {how} in {self.took:.1f} s"
        ]
        width = max(len(result.label) for result in self.results)
        for result in self.results:
            time = "" if result.seconds is None else f"{result.seconds * 1e3:.3f} ms"
            error = "" if result.error is None else f"error {result.error:.1e}"
            same = "" if result.same_top is None else f"same top class {result.same_top:.1%}"
            note = f"dropped: {result.note}" if result.note else ""
            mix = describe_mix(result.layers)
            rest = "; ".join(part for part in (note, mix) if part)
            lines.append(f"  {result.label:<{width}}  {time:>12}  {error:<13}  {same:<21}  {rest}".rstrip())
        return "\n".join(lines)


class Engine:
    """A network on the fastest engine that was found for it.

    Attributes:
        name: of the engine, for example "openvino"; "eager" is the network itself.
        precision: that it computes in.
        report: how it was chosen.
        shape: B, C, H, W that it was made for.
        transform: the network's; brings an image to what the engine takes.
        class_names: the network's; a name for each logit.
    """

    def __init__(
        self,
        batch_fn: BatchFn,
        report: Report,
        *,
        transform: Callable[[Any], Tensor] | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        self._runner = batch_fn
        self.report = report
        self.shape = report.shape
        self.name = report.chosen.engine
        self.precision: Precision = report.chosen.config.precision if report.chosen.config else "fp32"
        self.transform = transform
        self.class_names = class_names

    def __call__(self, x: Tensor) -> Tensor:
        """Images to logits: (B, C, H, W) -> logits (B, K) in float32.

        B may be any number: fewer images than the engine was made for are filled up with zeros, and more are
        cut into batches.

        Raises:
            ValueError: the images have another C, H or W than the engine was made for.
            TypeError: not a tensor.
        """
        if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"expected a tensor of images (B, C, H, W); received {type(x).__name__}")
        if x.dim() != 4 or tuple(x.shape[1:]) != self.shape[1:]:
            wanted = ", ".join(map(str, ("B", *self.shape[1:])))
            raise ValueError(
                f"the engine was made for images of shape ({wanted}); received {tuple(x.shape)}; "
                "call `convatlas.optimize` again for another size"
            )
        x = x.detach().to(self.report.device, torch.float32)
        batch = self.shape[0]
        if len(x) == batch:
            return self._runner(x)
        parts = [self._filled(part) for part in x.split(batch)] if len(x) else [self._filled(x)]
        return torch.cat(parts)

    def _filled(self, x: Tensor) -> Tensor:
        missing = self.shape[0] - len(x)
        if not missing:
            return self._runner(x)
        return self._runner(torch.cat([x, x.new_zeros(missing, *x.shape[1:])]))[: len(x)]

    def __repr__(self) -> str:
        """Name and shape."""
        return f"Engine({self.report.chosen.label!r}, shape={self.shape})"
