"""Evaluations for tests of searches in processes: importable there."""

import time

from convatlas.search import Architecture


def ones(found: Architecture, seed: int) -> float:
    """Larger with more separable convolutions; a little noise."""
    return found.text.count("sep3") / 4 + (seed % 1000) / 1e5


def slow(found: Architecture, seed: int) -> float:
    """As `ones`, after a time of its own."""
    time.sleep((seed % 7) * 0.01)
    return ones(found, seed)


def fails(found: Architecture, seed: int) -> float:
    """Fails for some architectures."""
    if found.text.count("max3") > 1:
        raise RuntimeError("no memory for two max3")
    return ones(found, seed)


def always_fails(found: Architecture, seed: int) -> float:
    """Fails."""
    raise RuntimeError("no memory")
