"""Kills trainings as the cases on standard input say, resumes them, and prints how they end.

Run as a program of its own: its children share what it has imported, which takes longer than to train.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convatlas import resume, train
from convatlas.data.sets import ImageSet, Source
from convatlas.data.sources import load_source
from convatlas.training.logging.events import Silent, StepDone
from convatlas.training.train_step import Learner

OPTIONS: dict[str, Any] = {"epochs": 2, "drop_rate": 0.2, "ema_decay": 0.9}
SAVE_EVERY = 4
WRITING = ((os, "fsync"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree"), (Path, "mkdir"))


def few_digits() -> Source:
    """Ten batches of digits to train on, and as many images to test on."""
    whole = load_source("digits")
    assert isinstance(whole.train, ImageSet)
    images, labels = whole.train.images, whole.train.labels
    train, test = (ImageSet(images[part], labels[part]) for part in (slice(320), slice(320, 420)))
    return dataclasses.replace(whole, name="few", train=train, test=test)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledAfter(Silent):
    """Kills the process when a step is done."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: StepDone) -> None:
        if done.step == self.at:
            die()


def kill_inside_update(step: int) -> None:
    """Kills the process when the weights of a step have moved, and nothing knows of it yet."""
    real = Learner.update

    def update(self: Learner, lr: float, at: int) -> bool:
        moved = real(self, lr, at)
        if at == step:
            die()
        return moved

    Learner.update = update


def kill_inside_writing(call: int, after: bool) -> None:
    """Kills the process before or after the writing call of that number, of checkpoints and other files."""
    count = 0

    def patched(real: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            module = sys._getframe(1).f_globals["__name__"]
            ours = module in ("convatlas.runs.checkpoint", "convatlas.files")
            count += ours
            if ours and count == call and not after:
                die()
            result = real(*args, **kwargs)
            if ours and count == call:
                die()
            return result

        return stand_in

    for owner, name in WRITING:
        setattr(owner, name, patched(getattr(owner, name)))


def begin(root: Path, name: str, case: dict[str, Any]) -> None:
    watcher = None
    if "after_step" in case:
        watcher = KilledAfter(case["after_step"])
    if "inside_update" in case:
        kill_inside_update(case["inside_update"])
    if "write" in case:
        kill_inside_writing(case["write"], case["after"])
    train("lenet5", data=DATA, out=root, name=name, save_every=SAVE_EVERY, watcher=watcher, **OPTIONS)


def go_on(root: Path, name: str) -> None:
    if (root / name / "run.json").is_file():
        resume(root / name, data=DATA, save_every=SAVE_EVERY)
    else:  # Killed before it had a record: there is nothing to go on with.
        shutil.rmtree(root / name, ignore_errors=True)
        begin(root, name, {})


def in_a_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


DATA = few_digits()


def main() -> None:
    root, cases = Path(sys.argv[1]), json.load(sys.stdin)
    results: dict[str, Any] = {}
    begin(root, "not-killed", {})  # Here, and not in a child: what it imports is shared from now on.
    for name, case in cases.items():
        code, killed = 0, False
        if case:
            code = in_a_child(lambda name=name, case=case: begin(root, name, case))
            killed = code == signal.SIGKILL
        if killed:
            code = in_a_child(lambda name=name: go_on(root, name))
        weights = root / name / "weights.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else ""
        lines = (root / name / "metrics.jsonl").read_text().splitlines()
        left = sorted(path.name for path in (root / name / "checkpoints").iterdir())
        results[name] = {"killed": killed, "code": code, "sha256": digest, "lines": lines, "left": left}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
