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
