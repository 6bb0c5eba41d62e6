"""Kills trainings at random moments, resumes them, and compares their weights with the uninterrupted ones.

    python benchmarks/resume.py [--kills 20] [--seed 0] [--network resnet20_cifar] [--epochs 4] [--only kills]

The network trains on the digits. Half of the kills come at random moments, half inside a checkpoint's
writing: before or after a random one of the calls that write, sync, rename or delete there. Then come other
numbers of workers, and of processes.
"""

import argparse
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from convatlas.runs.checkpoint import TEMPORARY
from convatlas.training.train import resume, train

SAVE_EVERY = 15
WRITES = ((os, "fsync"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree"), (Path, "mkdir"))


def sha256(run: Path) -> str:
    return hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained."""

    network: str
    epochs: int


def start(task: Task, folder: Path) -> None:
    """Begins a run, or goes on with it where it has a record."""
    if (folder / "run.json").is_file():
        resume(folder, save_every=SAVE_EVERY)
        return
    shutil.rmtree(folder, ignore_errors=True)
    train(task.network, epochs=task.epochs, out=folder.parent, name=folder.name, save_every=SAVE_EVERY)


def fork(work: Callable[[], None]) -> int:
    """Works in a child process: it shares what has been imported, which takes longer than to train."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def killed_at_random(task: Task, folder: Path, seconds: float) -> bool:
    """Whether the process died of the signal, and not at its own end before."""
    child = fork(lambda: start(task, folder))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def killed_inside(task: Task, folder: Path, call: int, after: bool) -> bool:
    """Kills before or after the writing call number `call` within checkpoints."""

    def work() -> None:
        count = 0

        def patched(real):
            def call_it(*args, **kwargs):
                nonlocal count
                inside = sys._getframe(1).f_globals["__name__"] in (
                    "convatlas.runs.checkpoint",
                    "convatlas.files",
                )
                count += inside
                if inside and count == call and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*args, **kwargs)
                if inside and count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call_it

        for owner, name in WRITES:
            setattr(owner, name, patched(getattr(owner, name)))
        start(task, folder)

    return os.waitpid(fork(work), 0)[1] == signal.SIGKILL


def finish(task: Task, folder: Path) -> None:
    code = os.waitpid(fork(lambda: start(task, folder)), 0)[1]
    if code:
        raise SystemExit(f"{folder}: could not be resumed (code {code})")


def compare(name: str, folder: Path, expected: str) -> bool:
    same = sha256(folder) == expected
    print(f"{name:60} {'equal' if same else 'DIFFERENT'}", flush=True)
    return same


def kills(task: Task, root: Path, count: int, draw: random.Random) -> list[bool]:
    whole = root / "whole"
    train(task.network, out=root, name="first", epochs=1)  # Imports what all children then share.
    began = time.perf_counter()
    finish(task, whole)
    seconds, expected = time.perf_counter() - began, sha256(whole)
    print(f"uninterrupted: {seconds:.1f} s, SHA-256 {expected}")
    equal = []
    for number in range(count):
        folder, left_behind = root / f"killed-{number}", 0
        while True:
            if number % 2:
                how = f"after {(delay := draw.uniform(0.0, seconds)):.2f} s"
                died = killed_at_random(task, folder, delay)
            else:
                call, after = draw.randint(1, 60), draw.random() < 0.5
                how = f"{'after' if after else 'before'} writing call {call}"
                died = killed_inside(task, folder, call, after)
            if died:
                break
            shutil.rmtree(folder)  # It was over before: that is no kill.
        left_behind = len(list((folder / "checkpoints").glob(f"{TEMPORARY}*")))
        there = sorted((folder / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
        finish(task, folder)
        state = f"last checkpoint {there[-1].name if there else 'none'}{', one half written' * left_behind}"
        equal.append(compare(f"kill {number + 1}: {how}; {state}", folder, expected))
    return equal


def images(root: Path) -> Path:
    """Three classes of small images of different sizes."""
    draw = np.random.default_rng(0)
    for label in range(3):
        folder = root / f"class-{label}"
        folder.mkdir(parents=True)
        for number in range(40):
            size = int(draw.integers(40, 60)), int(draw.integers(40, 60)), 3
            pixels = draw.integers(0, 120, size, dtype=np.uint8) + np.uint8(60 * label)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def workers(root: Path) -> list[bool]:
    data = f"folder:{images(root / 'images')}"
    options = {"data": data, "recipe": "modern", "input_size": 32, "epochs": 2, "batch_size": 16, "out": root}
    expected, equal = "", []
    for count in (0, 1, 2, 4):
        run = train("resnet20_cifar", name=f"workers-{count}", workers=count, **options)
        expected = expected or sha256(run.folder)
        equal.append(compare(f"{count} workers", run.folder, expected))
    return equal


def processes(task: Task, root: Path) -> list[bool]:
    """Two processes: the same weights each time, however often one of them is killed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    command += ["--master-port", "29517", "-m", "convatlas", "train", task.network, "--out", str(root)]
    command += ["--set", f"epochs={task.epochs}", "--save-every", str(SAVE_EVERY), "--name"]
    subprocess.run([*command, "two"], check=True, capture_output=True)
    torchrun = subprocess.Popen([*command, "two-killed"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list((root / "two-killed" / "checkpoints").glob("step-*")):
        time.sleep(0.05)
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output, errors = torchrun.communicate()
    if torchrun.returncode:
        raise SystemExit(f"torchrun ended with {torchrun.returncode}: {output.decode()}{errors.decode()}")
    return [compare("2 processes, one killed and restarted", root / "two-killed", sha256(root / "two"))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="lenet5")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", choices=("kills", "workers", "processes"))
    arguments = parser.parse_args()
    task, only = Task(arguments.network, arguments.epochs), arguments.only
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        equal: list[bool] = []
        if only in (None, "kills"):
            equal += kills(task, root, arguments.kills, random.Random(arguments.seed))
        if only in (None, "workers"):
            equal += workers(root)
        if only in (None, "processes"):
            equal += processes(task, root)
    print(f"{sum(equal)} of {len(equal)} equal")
    sys.exit(0 if all(equal) else 1)


if __name__ == "__main__":
    main()
