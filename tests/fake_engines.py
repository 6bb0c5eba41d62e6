"""Engines for tests of what goes wrong: each runs the exported network, and one thing else."""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from convatlas.engines.backend import Backend, BackendConfig, BatchFn, Job, Precision


def _precisions(job: Job) -> tuple[Precision, ...]:
    return ("fp32",)


def _configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return (BackendConfig(),)


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    (target / "net.pt2").write_bytes((source / "net.pt2").read_bytes())


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    return torch.inference_mode()(torch.export.load(folder / "net.pt2").module())


def _fail(*_: object) -> None:
    raise RuntimeError("it does not like this network\nand says so in two lines")


def _hang(*_: object) -> None:
    time.sleep(1000)


def _crash(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _two_ways(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return BackendConfig(), BackendConfig(at_once=1)


def _open_sluggish(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    right = _open(job, folder, config)

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


def _open_wrong(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    right = _open(job, folder, config)
    return lambda x: right(x) * 1.001


def _open_strange(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    return lambda x: torch.zeros(len(x), 3)


def _open_elsewhere(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    if not sys.argv[0].endswith("worker.py"):
        raise RuntimeError("not in this process")
    return _open(job, folder, config)


RIGHT = Backend("right", (), _precisions, _configs, _build, _open)
FAILS = Backend("fails", (), _precisions, _configs, _fail, _open)
HANGS = Backend("hangs", (), _precisions, _configs, _hang, _open)
CRASHES = Backend("crashes", (), _precisions, _configs, _crash, _open)
WRONG = Backend("wrong", (), _precisions, _configs, _build, _open_wrong)
STRANGE = Backend("strange", (), _precisions, _configs, _build, _open_strange)
ELSEWHERE = Backend("elsewhere", (), _precisions, _configs, _build, _open_elsewhere)
LEISURELY = Backend("leisurely", (), _precisions, _configs, _build_leisurely, _open)
SLUGGISH = Backend("sluggish", (), _precisions, _two_ways, _build, _open_sluggish)
LAST = Backend("last", (), _precisions, _configs, _build_last, _open, is_slow=True)
MISSING = Backend("missing", ("a_package_that_is_not_there",), _precisions, _configs, _build, _open)

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
