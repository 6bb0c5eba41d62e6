"""What a scaled network costs, exactly, without building each one.

A network of two blocks a stage is built for each width, without storage, and traced. Blocks behind the second
of a stage repeat it, so that parameters and MACs are linear in the number of blocks; MACs of a layer are its
output positions times a number that the input size does not change. Networks in which blocks do not repeat
are built as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from convatlas.models.registry import create_model
from convatlas.scaling.densenet import densenet_costs
from convatlas.scaling.families import DEPTH, WIDTH, Base
from convatlas.sizing import size
from convatlas.sizing.operation import VIEW

if TYPE_CHECKING:
    from convatlas.models.network import Config, Network
    from convatlas.sizing import Row, Sheet


OfRows = Callable[["Sheet"], Sequence[float]]
"""Gives a value for each row of a sheet."""


class Candidate(NamedTuple):
    """A network to consider: values of its config's multipliers, and px of its input."""

    depth_mult: float
    width_mult: float
    input_size: int


class Costs(NamedTuple):
    """Parameters, and MACs of one image."""

    params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Where the blocks that repeat are.

    Attributes:
        stages: for each stage with a depth, the path of its blocks, such as "stages.2.".
        first: index of a block, from which on all are alike.
        thin: fields of the config of a network with few blocks, in which each stage has block `first`.
        offset: index of the first block, where other modules precede the blocks.
    """

    stages: tuple[str, ...]
    first: int
    thin: Mapping[str, Any]
    offset: tuple[int, ...]


def find_repeats(base: Base) -> Repeats | None:
    """Which blocks of a network repeat; None where none do, or that is not known."""
    config = base.config
    module = type(config).__module__.rpartition(".")[2]
    depths: tuple[int, ...] = getattr(config, "stage_depths", ())
    plain = tuple(f"stages.{i}." for i in range(len(depths)))
    none = (0,) * len(depths)
    if not depths or getattr(config, "pointwise_last", False):
        return None
    if module == "efficientnet":
        return Repeats(plain, 1, {DEPTH: 1.01}, none)
    if module in ("mobilenet_v1", "mobilenet_v2"):
        return Repeats(plain, 1, {DEPTH: 1.5}, none)
    if module == "vgg":
        return Repeats(tuple(f"stages.{i}.conv" for i in range(5)), 1, _same("depths", 2, 5), (1,) * 5)
    if module == "inception_v4":
        return Repeats(("stages.1.", "stages.2.", "stages.3."), 1, _same("depths", 2, 3), (2, 1, 1))
    if module == "inception_resnet":
        return Repeats(("stages.1.", "stages.2.", "stages.3."), 0, _same("depths", 2, 3), (1, 1, 1))
    if module == "xception":
        return Repeats(("stages.2.",), 0, {"middle_blocks": 1, DEPTH: 1.0}, (1,))
    if module == "nasnet":
        stem = bool(getattr(config, "imagenet_stem", True))
        stages = ("stages.1.", "stages.2.", "stages.3.") if stem else ("stages.0.", "stages.1.", "stages.2.")
        return Repeats(stages, 2, {"cells": 3, DEPTH: 1.0}, (1, 1, 1) if stem else (0, 1, 1))
    fields = {field.name for field in dataclasses.fields(config)}
    if "blocks_per_stage" in fields:
        return Repeats(plain, 1, {"blocks_per_stage": 2, DEPTH: 1.0}, none)
    if module in ("resnet", "resnext", "senet", "wide_resnet", "preact_resnet"):
        return Repeats(plain, 1, _same("depths", 2, 4), none)
    return None


def _same(field: str, depth: int, stages: int) -> dict[str, Any]:
    return {field: (depth,) * stages, DEPTH: 1.0}


class _Layer(NamedTuple):
    """The share of the MACs of a layer that the input size leaves alone, and the block that it is in."""

    per_position: int
    stage: int
    block: int


@dataclasses.dataclass(frozen=True)
class _Thin:
    """A network with few blocks.

    Attributes:
        net: without storage.
        layers: its layers with MACs, by path and number of the call.
        params: parameters by stage and block; stage -1 for all that is in none.
        bytes: of parameters and buffers, by stage and block.
    """

    net: Network[Any]
    layers: Mapping[tuple[str, int], _Layer]
    params: Mapping[tuple[int, int], int]
    bytes: Mapping[tuple[int, int], int]


class CostModel:
    """Exact costs of the networks that a base network can become.

    Args:
        base: the network that is scaled.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.repeats = find_repeats(base)
        self._pattern = self._block_pattern()
        self._thins: dict[float, _Thin] = {}
        self._positions: dict[int, dict[tuple[str, int], int]] = {}
        self._known: dict[Candidate, Costs] = {}
        self._peaks: dict[tuple[float, int, int], int] = {}
        self._spreads: dict[tuple[float, int, int, OfRows], dict[tuple[int, int], float]] = {}
        self._memory: dict[tuple[Candidate, int], int] = {}

    def __call__(self, candidate: Candidate) -> Costs:
        """Parameters and MACs of a candidate: those that `size` gives for it."""
        if candidate not in self._known:
            self._known[candidate] = self._count(candidate)
        return self._known[candidate]

    def config(self, candidate: Candidate) -> Config:
        """The candidate's config."""
        return dataclasses.replace(self.base.config, **self.knobs(candidate))

    def knobs(self, candidate: Candidate) -> dict[str, float]:
        """The multipliers that the network has."""
        return {
            field: value
            for field, value, knob in ((DEPTH, candidate[0], "depth"), (WIDTH, candidate[1], "width"))
            if knob in self.base.knobs
        }

    def build(self, candidate: Candidate) -> Network[Any]:
        """The candidate, without storage."""
        return _build(self.base, self.knobs(candidate))

    def sheet(self, candidate: Candidate, batch_size: int = 1) -> Sheet:
        """The candidate's sizes."""
        return size(self.build(candidate), candidate.input_size, batch_size=batch_size)

    def memory(self, candidate: Candidate, batch_size: int = 1) -> int:
        """Most bytes that an inference holds at once, weights included: `size`'s `peak_inference_bytes`."""
        key = candidate, batch_size
        if key not in self._memory:
            self._memory[key] = self._count_memory(candidate, batch_size)
        return self._memory[key]

    def _count_memory(self, candidate: Candidate, batch_size: int) -> int:
        """From the thin network, whose maps are those of all blocks; or from the network itself."""
        depths, repeats = self.depths(candidate), self.repeats
        # A NASNet cell keeps maps alive that earlier cells made, so that its peak depends on the depth.
        exact = "depth" not in self.base.knobs or repeats is None or repeats.first > 1
        if exact or repeats is None or any(depth <= repeats.first for depth in depths):
            return self.sheet(candidate, batch_size).peak_inference_bytes
        thin = self._thin(candidate.width_mult)
        if any((stage, repeats.first) not in thin.params for stage in range(len(depths))):
            return self.sheet(candidate, batch_size).peak_inference_bytes
        place = candidate.width_mult, candidate.input_size, batch_size
        if place not in self._peaks:
            sheet = size(thin.net, candidate.input_size, batch_size=batch_size)
            self._peaks[place] = sheet.peak_inference_bytes - sum(thin.bytes.values())
        weights = sum(count * self._times(*at, depths) for at, count in thin.bytes.items())
        return self._peaks[place] + weights

    def spread(self, candidate: Candidate, batch_size: int, of_rows: OfRows) -> float:
        """The sum of something over all rows of a candidate, from the thin network where blocks repeat.

        Args:
            candidate: the network.
            batch_size: B.
            of_rows: gives a value for each row of a sheet.
        """
        depths, repeats = self.depths(candidate), self.repeats
        if repeats is None or any(depth < max(1, repeats.first) for depth in depths):
            return sum(of_rows(self.sheet(candidate, batch_size)))
        thin = self._thin(candidate.width_mult)
        place = candidate.width_mult, candidate.input_size, batch_size, of_rows
        if place not in self._spreads:
            sheet = size(thin.net, candidate.input_size, batch_size=batch_size)
            sums: dict[tuple[int, int], float] = {}
            for row, value in zip(sheet.rows, of_rows(sheet), strict=True):
                at = self._place(row.path)
                sums[at] = sums.get(at, 0.0) + value
            self._spreads[place] = sums
        return sum(value * self._times(*at, depths) for at, value in self._spreads[place].items())

    def activations(self, candidate: Candidate) -> int:
        """Elements that the operations write for one image: `size`'s `activations`."""
        return int(self.spread(candidate, 1, written))

    def depths(self, candidate: Candidate) -> tuple[int, ...]:
        """Blocks in each stage; empty where depth cannot be turned."""
        return tuple(getattr(self.config(candidate), "stage_depths", ()))

    def _count(self, candidate: Candidate) -> Costs:
        config = self.config(candidate)
        dense = densenet_costs(config, candidate.input_size)
        if dense is not None:
            return Costs(*dense)
        depths = getattr(config, "stage_depths", ())
        if self.repeats is None or any(depth < max(1, self.repeats.first) for depth in depths):
            sheet = self.sheet(candidate)
            return Costs(sheet.params, sheet.macs)
        thin = self._thin(candidate.width_mult)
        blocks = {block for _, block in thin.params}
        if any(depth > self.repeats.first and self.repeats.first not in blocks for depth in depths):
            sheet = self.sheet(candidate)
            return Costs(sheet.params, sheet.macs)
        positions = self._positions_of(candidate.width_mult, candidate.input_size)
        params = sum(count * self._times(*place, depths) for place, count in thin.params.items())
        macs = sum(
            layer.per_position * positions[key] * self._times(layer.stage, layer.block, depths)
            for key, layer in thin.layers.items()
        )
        return Costs(params, macs)

    def _times(self, stage: int, block: int, depths: tuple[int, ...]) -> int:
        """How often a block of the thin network occurs in one of these depths."""
        repeats = self.repeats
        if stage < 0 or repeats is None or block < repeats.first:
            return 1
        return depths[stage] - repeats.first if block == repeats.first else 0

    def _block_pattern(self) -> re.Pattern[str]:
        stages = () if self.repeats is None else self.repeats.stages
        return re.compile("|".join(rf"{re.escape(path)}(\d+)(?:\.|$)" for path in stages) or r"(?!)")

    def _place(self, path: str) -> tuple[int, int]:
        """Stage and block of a path; (-1, 0) for what is in no block."""
        match, repeats = self._pattern.match(path), self.repeats
        if match is None or repeats is None:
            return -1, 0
        stage = next(i for i, group in enumerate(match.groups()) if group is not None)
        block = int(match.groups()[stage]) - repeats.offset[stage]
        # Behind the blocks other modules may follow, such as Inception-ResNet's last convolution.
        if block < 0 or block >= self._thin_depths[stage]:
            return -1, 0
        return stage, block

    @functools.cached_property
    def _thin_depths(self) -> tuple[int, ...]:
        thin = {} if self.repeats is None else self.repeats.thin
        return tuple(getattr(dataclasses.replace(self.base.config, **thin), "stage_depths", ()))

    def _thin(self, width_mult: float) -> _Thin:
        if width_mult not in self._thins:
            fields = dict(self.repeats.thin) if self.repeats is not None else {}
            if "width" in self.base.knobs:
                fields[WIDTH] = width_mult
            net = _build(self.base, fields)
            sheet = size(net, self.base.input_size)
            layers = {
                key: _Layer(row.macs // spatial_positions(row), *self._place(row.path))
                for key, row in _keyed(sheet)
            }
            # Side classifiers are in no block, and `size` does not count them among the parameters.
            params: Counter[tuple[int, int]] = Counter({(-1, 0): -sheet.side_params})
            held: Counter[tuple[int, int]] = Counter()
            for name, value in net.named_parameters():
                params[self._place(name)] += value.numel()
                held[self._place(name)] += value.nbytes
            for name, value in net.named_buffers():
                held[self._place(name)] += value.nbytes
            self._thins[width_mult] = _Thin(net, layers, params, held)
        return self._thins[width_mult]

    def _positions_of(self, width_mult: float, input_size: int) -> dict[tuple[str, int], int]:
        """Output positions of each layer; they are the same at any width that has the same layers."""
        thin = self._thin(width_mult)
        found = self._positions.get(input_size)
        if found is None or found.keys() != thin.layers.keys():
            found = {key: spatial_positions(row) for key, row in _keyed(size(thin.net, input_size))}
            self._positions[input_size] = found
        return found


def _keyed(sheet: Sheet) -> list[tuple[tuple[str, int], Row]]:
    """The rows with MACs, by the path of their module and the number of its call."""
    calls: Counter[str] = Counter()
    found: list[tuple[tuple[str, int], Row]] = []
    for row in sheet.rows:
        if row.macs:
            found.append(((row.path, calls[row.path]), row))
            calls[row.path] += 1
    return found


def written(sheet: Sheet) -> list[int]:
    """Elements that each row writes; none for views and what works in place."""
    return [0 if row.kind == VIEW or row.inplace else row.output_elements for row in sheet.rows]


def spatial_positions(row: Row) -> int:
    """H times W of a row's output; 1 for a vector."""
    return math.prod(row.output_shape[2:])


def _build(base: Base, fields: Mapping[str, Any]) -> Network[Any]:
    options: dict[str, Any] = {**base.overrides, **fields}
    with torch.device("meta"):
        return create_model(base.network, features_only=False, **options)
