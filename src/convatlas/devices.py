"""The threads that torch computes with on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch


@contextlib.contextmanager
def torch_threads(count: int) -> Generator[None]:
    """Lends torch a number of threads; afterwards it has as many as before."""
    before = torch.get_num_threads()
    _set(count)
    try:
        yield
    finally:
        _set(before)


def _set(count: int) -> None:
    if torch.get_num_threads() != count:  # Setting costs more than asking, at each call of a network.
        torch.set_num_threads(count)


def find_device(name: str | None, local_rank: int = 0) -> torch.device:
    """The device of a name.

    Args:
        name: "cpu", "cuda" or another of torch's; None for a GPU if there is one, else the CPU.
        local_rank: number of the GPU, where the name says none.

    Raises:
        ValueError: there is no such device.
    """
    found = torch.cuda.device_count()
    if name is None:
        name = "cuda" if found else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"`device`={name!r}; expected a device of torch, for example 'cpu' or 'cuda'"
        ) from None
    if device.type != "cuda":
        return device
    device = device if ":" in name else torch.device("cuda", local_rank)
    if device.index >= found:
        raise ValueError(f"`device`={name!r} would be GPU {device.index}, and torch sees {found} here")
    return device
