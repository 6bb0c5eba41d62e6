"""The same work with other numbers of threads."""

from collections.abc import Callable

import torch
from torch import Tensor


def with_threads(work: Callable[[], list[Tensor]]) -> list[list[Tensor]]:
    """What the work gives with one, two and three threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(work())
    finally:
        torch.set_num_threads(before)
    return found
