import errno
import json
import os
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import Tensor

from convatlas.runs import checkpoint as files
from convatlas.runs.checkpoint import (
    CheckpointError,
    SpaceError,
    check_room,
    clean,
    newest_checkpoint,
    prune,
    read_checkpoint,
    steps_in,
    write_checkpoint,
)

STATE = {"standing": {"step": 7, "loss_sum": 0.1 + 0.2}, "name": "ü"}


def groups(fill: float = 1.0) -> dict[str, dict[str, Tensor]]:
    weight = torch.full((2, 3, 4, 4), fill).contiguous(memory_format=torch.channels_last)
    return {
        "weights": {"a": weight, "b": torch.arange(5)},
        "optimiser": {"v.0": torch.tensor(fill)},
        "average": {},
    }


def write(root: Path, step: int) -> Path:
    return write_checkpoint(root, step, STATE, groups(float(step)))


def overwrite_by_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def ignore(_: str) -> None:
    return


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoints", 7)
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimiser.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    found = read_checkpoint(folder)
    assert (found.step, found.state) == (7, STATE)
    for name in ("weights", "optimiser"):
        for key, tensor in groups(7.0)[name].items():
            assert torch.equal(found.tensors(name)[key], tensor)
    with pytest.raises(CheckpointError, match=r"holds no average\.safetensors"):
        found.tensors("average")


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    shared = torch.rand(4, 4)
    folder = write_checkpoint(tmp_path, 1, {}, {"weights": {"a": shared, "b": shared, "c": shared[:2]}})
    found = read_checkpoint(folder).tensors("weights")
    assert torch.equal(found["a"], shared)
    assert torch.equal(found["b"], shared)
    assert torch.equal(found["c"], shared[:2])


@pytest.mark.parametrize("number", range(30))
def test_any_flipped_bit_is_found(tmp_path: Path, number: int) -> None:
    folder = write(tmp_path, 3)
    draw = random.Random(number)
    path = draw.choice(sorted(folder.iterdir()))
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"step-3 is damaged: .*{path.name}"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(lambda f: (f / "state.json").unlink(), "state.json cannot be read", id="no-state"),
        pytest.param(
            lambda f: (f / "state.json").write_text(""), "state.json cannot be read", id="empty-state"
        ),
        pytest.param(
            lambda f: (f / "state.json").write_text("[]"), "state.json cannot be read", id="other-json"
        ),
        pytest.param(
            lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors is missing", id="no-weights"
        ),
        pytest.param(
            lambda f: os.truncate(f / "weights.safetensors", 100),
            "weights.safetensors has 100 bytes of",
            id="truncated",
        ),
        pytest.param(
            lambda f: (f / "weights.safetensors").write_bytes(
                b"\0" * (f / "weights.safetensors").stat().st_size
            ),
            "the checksum of weights.safetensors is not what was written",
            id="zeros",
        ),
        pytest.param(
            lambda f: shutil.copy(f.parent / "step-2" / "state.json", f / "state.json"),
            "the checksum of optimiser.safetensors|the checksum of weights.safetensors",
            id="state-of-another",
        ),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_one_line(tmp_path: Path, harm, message: str) -> None:
    for step in (1, 2, 10):
        write(tmp_path, step)
    harm(tmp_path / "step-10")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "step-10")
    told: list[str] = []
    found = newest_checkpoint(tmp_path, told.append)
    assert found is not None
    assert found.step == 2
    assert len(told) == 1
    assert told[0].startswith("step-10 is damaged: ")
    assert told[0].endswith("; going back to step-2")


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere", ignore) is None
    write(tmp_path, 4)
    (tmp_path / "step-4" / "state.json").unlink()
    told: list[str] = []
    assert newest_checkpoint(tmp_path, told.append) is None
    assert told == [
        "step-4 is damaged: state.json cannot be read; there is no other, so training begins anew"
    ]


def test_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, 4)
    (tmp_path / "step-4" / "state.json").unlink()
    write(tmp_path, 4)
    assert read_checkpoint(tmp_path / "step-4").step == 4


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 100, 200):
        write(tmp_path, step)
    prune(tmp_path, 2, 2)
    assert steps_in(tmp_path) == [2, 100, 200]
    prune(tmp_path, 1, None)
    assert steps_in(tmp_path) == [200]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-200"]


def test_remains_of_dead_processes_go(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / ".writing-4-123").mkdir()
    (tmp_path / ".writing-4-123" / "weights.safetensors").write_bytes(b"half")
    clean(tmp_path, after=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]
    clean(tmp_path / "nowhere", after=0)


@pytest.mark.parametrize("call", range(1, 8))
def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    write(tmp_path, 1)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "step-1").iterdir())}
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == min(call, 4):  # Two files of tensors, the state, the folder.
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        SpaceError, match=r"no room for the checkpoint of step 2: it needs .* MiB, .*step-1 is safe"
    ):
        write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1"]
    assert {path: path.read_bytes() for path in before} == before


def test_another_error_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 2**20, 2**20))
    check_room(tmp_path / "deep" / "down", 2**20, "run")
    with pytest.raises(SpaceError, match=r"no room for the run: it needs 3\.0 MiB, 1\.0 MiB are free$"):
        check_room(tmp_path / "deep" / "down", 3 * 2**20, "run")


def test_bytes_needed_is_what_is_written(tmp_path: Path) -> None:
    tensors = {"weights": {f"layer.{i}.weight": torch.rand(50, 60) for i in range(20)}}
    folder = write_checkpoint(tmp_path, 1, STATE, tensors)
    written = sum(path.stat().st_size for path in folder.iterdir())
    assert written <= files.bytes_needed(tensors) <= written * 1.5
    assert json.loads((folder / "state.json").read_text())["files"]["weights.safetensors"]["bytes"] > 0
