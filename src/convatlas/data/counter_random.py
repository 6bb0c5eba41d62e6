"""Random numbers without state: a draw is a function of what it is for.

A number depends on (seed, epoch, sample, purpose) and on nothing else, so it is the same whatever
the batch size, the number of workers or machines, and whether training was stopped in between.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(
    seed: int, epoch: int, samples: NDArray[np.int64], purpose: str, count: int
) -> NDArray[np.float64]:
    """Draws numbers in [0, 1).

    Args:
        seed: of the run.
        epoch: counted from 0.
        samples: index of each sample in the data set, (N,).
        purpose: what the numbers are for, for example "affine"; another purpose, other numbers.
        count: numbers for each sample.

    Returns:
        (N, count) in double precision, 53 random bits each.
    """
    key = _mix(np.uint64(zlib.crc32(purpose.encode())) + _mix(np.uint64(epoch) + _mix(np.uint64(seed))))
    with np.errstate(over="ignore"):
        rows = _mix(samples.astype(np.uint64) * _GOLDEN + key)
        cells = _mix(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, size: int, purpose: str = "order") -> NDArray[np.int64]:
    """A random order of `size` samples, another one for each epoch, as a function of (seed, epoch)."""
    keys = uniform(seed, epoch, np.arange(size), purpose, 1)[:, 0]
    return np.argsort(keys, kind="stable")


def _mix(x: Any) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): each bit moves all bits."""
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
