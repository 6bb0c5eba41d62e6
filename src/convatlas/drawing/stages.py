"""Stages: runs of blocks whose output has one size."""

from __future__ import annotations

from collections.abc import Sequence

from .units import Stage, Unit, unit_signature


def find_stages(units: Sequence[Unit]) -> tuple[Stage, ...]:
    """Stem, stages and head; the inputs are left out."""
    units = [unit for unit in units if unit.last.kind != "input"]
    blocks = [place for place, unit in enumerate(units) if unit.is_block]
    if blocks:
        first, last = blocks[0], blocks[-1] + 1
        if first > 8:
            first = 0
        # A pooling that opens the first stage of blocks belongs to what is before it.
        body = units[first:last]
        stem, head = units[:first], units[last:]
    else:
        body, head = _plain(units)
        stem = []
    stages = [Stage("stem", tuple(stem))] if stem else []
    runs = _runs(body)
    stages += [Stage(f"stage {i}", tuple(run)) for i, run in enumerate(runs, 1)]
    if head:
        stages.append(Stage("head", tuple(head)))
    return tuple(stages)


def _plain(units: list[Unit]) -> tuple[list[Unit], list[Unit]]:
    """A network without blocks: its layers up to the first vector, and the rest."""
    end = len(units)
    for place, unit in enumerate(units):
        vector = len(unit.shape) < 3 or unit.shape[-1] == 1
        if unit.last.kind == "linear" or (unit.last.kind == "pool" and vector):
            end = place
            break
    # A last pooling of its own size is no stage.
    if end and end < len(units) and units[end - 1].last.kind == "pool" and end > 1:
        before = units[end - 2]
        if _px(before) != _px(units[end - 1]):
            end -= 1
    return units[:end], units[end:]


def _px(unit: Unit) -> tuple[int, ...]:
    return unit.shape[1:] if len(unit.shape) > 1 else ()


def _runs(units: list[Unit]) -> list[list[Unit]]:
    by_size: list[list[Unit]] = []
    for unit in units:
        if by_size and _px(by_size[-1][-1]) == _px(unit):
            by_size[-1].append(unit)
        else:
            by_size.append([unit])
    runs: list[list[Unit]] = []
    for run in by_size:
        runs.extend(_by_width(run))
    return _without_lone_poolings(runs)


def _by_width(run: list[Unit]) -> list[list[Unit]]:
    """Splits a run where the width changes, if its blocks keep their widths otherwise."""
    kinds = {unit.kind for unit in run if unit.is_block}
    if not kinds or not kinds <= {"residual", "chain"}:
        return [run]
    parts: list[list[Unit]] = []
    for unit in run:
        if parts and parts[-1][-1].shape == unit.shape:
            parts[-1].append(unit)
        else:
            parts.append([unit])
    return parts if len(run) >= 2 * len(parts) else [run]


def _without_lone_poolings(runs: list[list[Unit]]) -> list[list[Unit]]:
    """A pooling that is alone at its size goes with what follows, or with what is before it at the end."""
    merged: list[list[Unit]] = []
    held: list[Unit] = []
    for run in runs:
        if len(run) == 1 and run[0].last.kind == "pool" and not run[0].is_block:
            held.extend(run)
            continue
        merged.append([*held, *run])
        held = []
    if held:
        if merged:
            merged[-1].extend(held)
        else:
            merged.append(held)
    return merged


def stacks_of(units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
    """Runs of equal blocks; a layer is a run of its own."""
    stacks: list[tuple[Unit, ...]] = []
    for unit in units:
        same = stacks and unit.is_block and unit_signature(stacks[-1][-1]) == unit_signature(unit)
        if same and unit.kind != "dense":
            stacks[-1] = (*stacks[-1], unit)
        else:
            stacks.append((unit,))
    return stacks
