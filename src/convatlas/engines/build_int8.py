"""Building an engine in int8, with as few layers in float as agreement needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from convatlas.engines.agreement import compare
from convatlas.engines.backend import BatchFn, Job, read_program
from convatlas.engines.mixed import LayerCost, mixes, names_in_float, rank_layers, write_mix


def build_int8(
    job: Job,
    source: Path,
    target: Path,
    write: Callable[[Sequence[str]], None],
    open_written: Callable[[], BatchFn],
) -> None:
    """Writes mixes of int8 and float until one agrees with the network, and which it was beside it.

    Where none agrees, the last one is left.

    Args:
        job: what is to be run, and how well it must agree.
        source: the job's folder.
        target: the engine's own, in which the mix is noted.
        write: quantises, with these layers in float.
        open_written: opens what was written.
    """

    def rank() -> tuple[LayerCost, ...]:
        images = torch.from_numpy(np.load(source / "calibration.npy"))
        return rank_layers(read_program(source), images)

    check, expected = (torch.from_numpy(np.load(source / f"{name}.npy")) for name in ("check", "expected"))
    for mix in mixes(rank):
        write(names_in_float(mix))
        write_mix(target, mix)
        run = open_written()
        found = compare(torch.cat([run(part) for part in check.split(job.shape[0])]), expected)
        if found.error <= job.lowest_tolerance and found.same_top >= job.agreement:
            return
