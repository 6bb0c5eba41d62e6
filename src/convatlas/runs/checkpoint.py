"""Checkpoints: folders that are whole, or are not there.

    checkpoints/step-1200/weights.safetensors     what the network's state dict holds
                          optimiser.safetensors   and any other group of tensors by its name
                          state.json              everything else, with the SHA-256 of each file and its own

A checkpoint is written to a hidden folder, synced to disk and renamed. Whatever moment the process or the
machine dies at, each `step-N` was once complete; that it still is, reading verifies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from convatlas.files import write_json
from convatlas.weights.files import read_weights, write_safetensors

STATE = "state.json"
TEMPORARY = ".writing-"
# What a disk says when there is no room: it is full, the quota is used up, a file's size is limited.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointError(ValueError):
    """A checkpoint that is not what was written; the message names the file and says why."""


class SpaceError(ValueError):
    """There is too little room on the disk; the message says how much is needed."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been verified.

    Attributes:
        folder: where its files lie.
        step: steps that were done.
        state: what was stored beside the tensors.
    """

    folder: Path
    step: int
    state: dict[str, Any]

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors of a group by name, on the CPU.

        Raises:
            CheckpointError: the checkpoint has no such group.
        """
        path = self.folder / f"{group}.safetensors"
        if not path.is_file():
            raise CheckpointError(f"{self.folder}: holds no {path.name}")
        return read_weights(path)


def write_checkpoint(
    root: Path, step: int, state: Mapping[str, Any], groups: Mapping[str, Mapping[str, Tensor]]
) -> Path:
    """Writes `root/step-N`, or nothing.

    Args:
        root: folder of a run's checkpoints; made where it is missing.
        step: steps done.
        state: what JSON can hold.
        groups: tensors by name, by the name of their group. A group without tensors is left out.

    Raises:
        SpaceError: the disk is full; what was there before is as it was.
        OSError: it cannot be written for another reason; what was there before is as it was.
    """
    target, temporary = root / f"step-{step}", root / f"{TEMPORARY}{step}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        files: dict[str, dict[str, Any]] = {}
        for group, tensors in groups.items():
            if tensors:
                path = temporary / f"{group}.safetensors"
                write_safetensors(path, _unshared(tensors))
                files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        content = {"step": step, "state": dict(state), "files": files}
        write_json(temporary / STATE, content | {"sha256": _own_sha256(content)})
        _sync(temporary)
        if target.exists():  # Damaged, else it would not be written again.
            shutil.rmtree(target)
        temporary.rename(target)
        _sync(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in FULL:
            raise SpaceError(no_room(root, bytes_needed(groups), f"checkpoint of step {step}")) from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint and verifies every byte of it.

    Raises:
        CheckpointError: a file is missing, or is not the one that was written.
    """
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
        stated = content.pop("sha256")
        step, state, files = content["step"], content["state"], content["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{folder.name} is damaged: {STATE} cannot be read") from None
    if stated != _own_sha256(content):
        raise CheckpointError(f"{folder.name} is damaged: {STATE} is not what was written")
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder.name} is damaged: {name} is missing")
        if path.stat().st_size != facts["bytes"]:
            raise CheckpointError(
                f"{folder.name} is damaged: {name} has {path.stat().st_size:,} bytes of {facts['bytes']:,}"
            )
        if _sha256(path) != facts["sha256"]:
            raise CheckpointError(f"{folder.name} is damaged: the checksum of {name} is not what was written")
    return Checkpoint(folder, step, state)


def newest_checkpoint(root: Path, tell: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where there is none.

    Args:
        root: folder of a run's checkpoints; it need not exist.
        tell: receives one line for each damaged checkpoint that was passed over.
    """
    damaged: list[str] = []
    for step in sorted(steps_in(root), reverse=True):
        try:
            found = read_checkpoint(root / f"step-{step}")
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for reason in damaged:
            tell(f"{reason}; going back to {found.folder.name}")
        return found
    for reason in damaged:
        tell(f"{reason}; there is no other, so training begins anew")
    return None


def steps_in(root: Path) -> list[int]:
    """The steps that have a checkpoint, ascending; whether it is whole is not looked at."""
    if not root.is_dir():
        return []
    tails = (path.name.removeprefix("step-") for path in root.glob("step-*") if path.is_dir())
    return sorted(int(tail) for tail in tails if tail.isdecimal())


def prune(root: Path, keep: int, pinned: int | None) -> None:
    """Deletes all but the newest checkpoints.

    Args:
        root: folder of a run's checkpoints.
        keep: how many of the newest stay, at least one.
        pinned: a step whose checkpoint stays too, for example the best.
    """
    for step in steps_in(root)[: -max(1, keep)]:
        if step != pinned:
            _delete(root / f"step-{step}")


def clean(root: Path, after: int) -> None:
    """Deletes what dead processes left half written, and checkpoints newer than the one gone back to.

    Args:
        root: folder of a run's checkpoints; it need not exist.
        after: the step that training goes on from.
    """
    if root.is_dir():
        for path in root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)
    for step in steps_in(root):
        if step > after:
            _delete(root / f"step-{step}")


def bytes_needed(groups: Mapping[str, Mapping[str, Tensor]]) -> int:
    """What a checkpoint of these tensors takes on the disk, with a margin for headers and JSON."""
    tensors = [tensor for group in groups.values() for tensor in group.values()]
    return sum(tensor.numel() * tensor.element_size() + 256 for tensor in tensors) + 65536


def check_room(root: Path, needed: int, what: str) -> None:
    """Refuses to begin what will not fit.

    Raises:
        SpaceError: less than `needed` bytes are free where `root` will be.
    """
    if shutil.disk_usage(_existing(root)).free < needed:
        raise SpaceError(no_room(root, needed, what))


def no_room(root: Path, needed: int, what: str) -> str:
    """One line for a full disk, with what is needed, what is free and what is safe."""
    free = shutil.disk_usage(_existing(root)).free
    kept = f"; step-{steps_in(root)[-1]} is safe" if steps_in(root) else ""
    return f"{root}: no room for the {what}: it needs {_mib(needed)}, {_mib(free)} are free{kept}"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.resolve().parents) if folder.exists())


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies a tensor that another name has already: the file format has no shared memory."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.detach().clone() if key in seen else tensor
        seen.add(key)
    return plain


def _delete(folder: Path) -> None:
    """Deletes a checkpoint in two steps, so that its name never stands for half of one."""
    hidden = folder.with_name(f"{TEMPORARY}{folder.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        folder.rename(hidden)
        shutil.rmtree(hidden)


def _own_sha256(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


CHECKPOINTS = "checkpoints"
