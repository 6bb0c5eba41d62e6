"""Engines for tests of what goes wrong: each runs the exported network, and one thing else."""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from convatlas.engines.backend import Job, Maker, Precision, Runner, Setting


def _precisions(job: Job) -> tuple[Precision, ...]:
    return ("fp32",)


def _ways(job: Job, precision: Precision) -> tuple[Setting, ...]:
    return (Setting(),)


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    (target / "net.pt2").write_bytes((source / "net.pt2").read_bytes())


def _open(job: Job, folder: Path, setting: Setting) -> Runner:
    return torch.inference_mode()(torch.export.load(folder / "net.pt2").module())


def _fail(*_: object) -> None:
    raise RuntimeError("it does not like this network\nand says so in two lines")


def _hang(*_: object) -> None:
    time.sleep(1000)


def _crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _two_ways(job: Job, precision: Precision) -> tuple[Setting, ...]:
    return Setting(), Setting(at_once=1)


def _open_sluggish(job: Job, folder: Path, setting: Setting) -> Runner:
    right = _open(job, folder, setting)

    def run(x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.6)
        return right(x)

    return run


def _build_leisurely(job: Job, precision: Precision, source: Path, target: Path) -> None:
    time.sleep(0.5)
    _build(job, precision, source, target)


def _build_last(job: Job, precision: Precision, source: Path, target: Path) -> None:
    if not (source / "leisurely" / "net.pt2").exists():
        raise RuntimeError("began before the others were ready")
    _build(job, precision, source, target)


def _open_wrong(job: Job, folder: Path, setting: Setting) -> Runner:
    right = _open(job, folder, setting)
    return lambda x: right(x) * 1.001


def _open_strange(job: Job, folder: Path, setting: Setting) -> Runner:
    return lambda x: torch.zeros(len(x), 3)


def _open_elsewhere(job: Job, folder: Path, setting: Setting) -> Runner:
    if not sys.argv[0].endswith("trial.py"):
        raise RuntimeError("not in this process")
    return _open(job, folder, setting)


RIGHT = Maker("right", (), _precisions, _ways, _build, _open)
FAILS = Maker("fails", (), _precisions, _ways, _fail, _open)
HANGS = Maker("hangs", (), _precisions, _ways, _hang, _open)
CRASHES = Maker("crashes", (), _precisions, _ways, _crash, _open)
WRONG = Maker("wrong", (), _precisions, _ways, _build, _open_wrong)
STRANGE = Maker("strange", (), _precisions, _ways, _build, _open_strange)
ELSEWHERE = Maker("elsewhere", (), _precisions, _ways, _build, _open_elsewhere)
LEISURELY = Maker("leisurely", (), _precisions, _ways, _build_leisurely, _open)
SLUGGISH = Maker("sluggish", (), _precisions, _two_ways, _build, _open_sluggish)
LAST = Maker("last", (), _precisions, _ways, _build_last, _open, is_slow=True)
MISSING = Maker("missing", ("a_package_that_is_not_there",), _precisions, _ways, _build, _open)

PLACES = {
    name: f"fake_engines:{name.upper()}"
    for name in (
        "right",
        "fails",
        "hangs",
        "crashes",
        "wrong",
        "strange",
        "elsewhere",
        "leisurely",
        "sluggish",
        "last",
        "missing",
    )
}
