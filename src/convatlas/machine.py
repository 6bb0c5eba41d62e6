"""What this machine is. Needs no torch."""

import hashlib
import os
import platform
from pathlib import Path

SPINS = "10000"
"""How often torch's threads look again while they wait for each other: about 0.1 ms."""
COUNTERS, STEAL = Path("/proc/stat"), 8
"""Linux's counts for all processors; the column of what the host took, as proc(5) has it."""


def share_cores() -> None:
    """Makes torch's threads, when they wait for each other, go to sleep after 0.1 ms instead of 3 ms.

    A thread that waits awake keeps its core from the one that it waits for, as soon as there is other work on
    the machine: workers that read images, for example. What the user's environment says counts. Has to be
    called before torch is imported; results stay the same to the bit.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def processor() -> str:
    """The processor's name as its maker writes it, else its architecture."""
    lines = _cpuinfo()
    if not lines:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def abilities() -> str:
    """A short mark of the instructions that the processor has: machines of one make may differ in them."""
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:16]


def steal_time() -> float:
    """Seconds of all processors together that the host of this virtual machine gave to others; 0 for none.

    Counted since the machine started, in hundredths, and only while there was work to do.
    """
    try:
        with COUNTERS.open(encoding="ascii") as counters:
            fields = counters.readline().split()
        return int(fields[STEAL]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _cpuinfo() -> list[str]:
    """What Linux says of its processors, line by line; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
