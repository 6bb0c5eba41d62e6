"""The memory of a training step on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Generator

# glibc's numbers for `mallopt` (malloc.h), and its values where nothing was set (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
GLIBC_DEFAULTS = {M_TRIM_THRESHOLD: 128 * 1024, M_MMAP_MAX: 65536}


@contextlib.contextmanager
def kept_memory() -> Generator[None]:
    """Keeps the memory that a step frees for the next step, instead of giving it back to the system.

    glibc maps each large block anew, and the system clears its pages as they are touched: a third of the time
    of a step of MobileNetV2. Where the C library is another, nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        for name, value in GLIBC_DEFAULTS.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if os.name == "posix":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            return libc
    return None
