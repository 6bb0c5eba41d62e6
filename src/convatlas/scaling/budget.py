"""What a plan may cost, and how a budget is written."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

AMOUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*")

KINDS = ("macs", "params", "memory", "latency")
"""What can be limited: MACs of one image, parameters, bytes of an inference, seconds of a batch."""
UNITS: Mapping[str, Mapping[str, float]] = {
    "macs": AMOUNTS,
    "params": AMOUNTS,
    "memory": BYTES,
    "latency": SECONDS,
}
EXAMPLES = {"macs": "800M", "params": "10M", "memory": "200MB", "latency": "20ms"}


def read_amount(kind: str, given: str | float) -> float:
    """A budget as a number: MACs, parameters, bytes or seconds.

    Args:
        kind: one of `KINDS`.
        given: a number, or text with a unit, such as "800M", "200MB" or "20ms".

    Raises:
        ValueError: the unit is unknown or missing, or the number is not finite and above 0.
    """
    flag = f"`--{kind}`={given!r}"
    if isinstance(given, str):
        match = _NUMBER.fullmatch(given)
        if match is None:
            raise ValueError(f"{flag}; expected a number with its unit, such as {EXAMPLES[kind]}")
        number, unit = match.groups()
        units = UNITS[kind]
        if unit not in units:
            allowed = ", ".join(name for name in units if name)
            missing = "has no unit" if not unit else f"has the unit {unit!r}"
            raise ValueError(
                f"{flag} {missing}; a budget of {kind} takes {allowed}, such as {EXAMPLES[kind]}"
            )
        value = float(number) * units[unit]
    else:
        value = given
    if not 0 < value < math.inf:
        raise ValueError(f"{flag}; expected a finite amount above 0, such as {EXAMPLES[kind]}")
    return float(value)


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that a plan may cost; None where nothing is asked.

    Attributes:
        macs: multiply-adds of one image.
        params: parameters.
        memory: bytes that an inference holds at once, weights included.
        latency: seconds of a batch.
    """

    macs: float | None = None
    params: float | None = None
    memory: float | None = None
    latency: float | None = None

    @property
    def asked(self) -> dict[str, float]:
        """The kinds that are limited, and by how much."""
        given = {kind: getattr(self, kind) for kind in KINDS}
        return {kind: value for kind, value in given.items() if value is not None}

    def __str__(self) -> str:
        """For messages: "--macs 800M and --latency 20ms"."""
        return " and ".join(f"--{kind} {say_amount(kind, value)}" for kind, value in self.asked.items())


def read_budget(**given: str | float | None) -> Budget:
    """A budget from numbers or text with units.

    Args:
        given: by kind, one of `KINDS`; None for no limit.

    Raises:
        ValueError: no kind is given, or one is not an amount.
    """
    read = {kind: read_amount(kind, value) for kind, value in given.items() if value is not None}
    if not read:
        raise ValueError(
            "no budget is given; expected --macs 800M, --params 10M, --memory 200MB or --latency 20ms"
        )
    return Budget(**read)


def say_amount(kind: str, value: float) -> str:
    """An amount with three digits and its unit, such as 386M or 12.5ms."""
    if kind == "latency":
        unit = "s" if value >= 1 else "ms" if value >= 1e-3 else "us"
        return f"{_three(value / SECONDS[unit])}{unit}"
    steps = ["", "k", "M", "G", "T"]
    power = 0 if value < 1 else min(int(math.log10(value) / 3), len(steps) - 1)
    if round(value / 10 ** (3 * power)) >= 1000 and power < len(steps) - 1:
        power += 1
    unit = steps[power] + ("B" if kind == "memory" else "")
    return f"{_three(value / 10 ** (3 * power))}{unit}"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
