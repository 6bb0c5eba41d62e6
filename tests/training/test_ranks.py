"""Two processes under torchrun, one of which is killed and started anew."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from convatlas import train
from convatlas.runs.run import epoch_lines
from convatlas.training.cpu import choose as fast
from convatlas.training.distributed import LOST, Ranks, agree_on_life, launch_name, open_ranks
from training.two_ranks import OPTIONS, few_digits, in_float32, measured


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes found, and where their runs lie."""
    root = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [str(Path(__file__).with_name("two_ranks.py")), str(root)]
    ended = subprocess.run([*torchrun, "--max-restarts", "1", *program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads((root / "facts.json").read_text()) | {"root": root}


def weights(root: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(root / name / "weights.safetensors")


def test_the_evaluation_is_that_of_one_process(together: dict[str, Any]) -> None:
    alone, theirs = measured(Ranks(torch.device("cpu"))), together["evaluation"]
    assert theirs["count"] == 101
    for name in ("correct", "top5", "count", "confusion"):
        assert theirs[name] == alone[name]
    assert theirs["loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_the_training_is_that_of_one_process(
    together: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LeNet-5 has neither normalisation nor dropout; only the order of sums differs.
    monkeypatch.setattr(fast, "_autocast", in_float32)
    alone = train("lenet5", data=few_digits(), out=tmp_path, name="one", **OPTIONS)
    for name, tensor in weights(together["root"], "two").items():
        assert torch.allclose(tensor, weights(tmp_path, "one")[name], atol=1e-4), name
    lines = [
        json.loads(line) for line in (together["root"] / "two" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["loss"] for line in lines] == pytest.approx([m["loss"] for m in alone.metrics()], rel=1e-4)
    accuracies = [[line["train_accuracy"] for line in epoch_lines(part)] for part in (lines, alone.metrics())]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)


def test_a_killed_process_makes_no_difference(together: dict[str, Any]) -> None:
    assert together["restarts"] == "1"
    names = ("two", "killed")
    two, killed = (together["root"] / name / "weights.safetensors" for name in names)
    assert hashlib.sha256(two.read_bytes()).digest() == hashlib.sha256(killed.read_bytes()).digest()
    record = json.loads((together["root"] / "killed" / "run.json").read_text())
    assert record["result"]["test_accuracy"] == together["accuracy"]
    assert record["machine"]["processes"] == 2


def test_the_survivor_says_what_happened(tmp_path: Path) -> None:
    # Without torchrun, which may end the survivor before it has found out.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    program = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(tmp_path), "lose"]
    processes = [
        subprocess.Popen(
            program, env=os.environ | common | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert processes[1].returncode == -signal.SIGKILL
    assert processes[0].returncode == 1
    assert "RanksError: another process of this training is gone" in errors[0]


def test_all_end_with_the_same_weights(together: dict[str, Any]) -> None:
    assert together["equal_weights"]


def test_processes_that_differ_are_refused(together: dict[str, Any]) -> None:
    assert together["refused"].startswith("the configuration of rank 1 on ")
    assert together["refused"].endswith(" is not that of rank 0")
    assert together["refused_training"].startswith("the configuration of rank 1 on ")
    assert not (together["root"] / "never").exists()


def test_alone_nothing_is_exchanged() -> None:
    with open_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.is_first) == (0, 1, True)
        assert ranks.shard(7) == slice(0, 7)
        assert ranks.broadcast_object("x") == "x"
        ones = torch.ones(2)
        assert ranks.all_reduce_sum(ones) is ones
        ranks.broadcast_([ones])
        ranks.check_same("configuration", "any")
        net = torch.nn.Linear(1, 1)
        assert ranks.wrap(net, unused=False) is net


def test_each_life_has_a_name_of_its_own() -> None:
    # torchrun keeps the store through its restarts; here three processes live twice, and some die early.
    store, names = dist.HashStore(), set[str]()
    for dead in (0, 1, 2):
        store.set(f"life/asked/{dead}", "somebody who died before the others came")
        with ThreadPoolExecutor(3) as pool:
            life = set(pool.map(lambda rank: agree_on_life(store, rank, 3), range(3)))
        assert len(life) == 1
        names |= life
    assert len(names) == 3


@pytest.mark.parametrize(("count", "world_size"), [(10, 3), (2, 4), (7, 7), (0, 2)])
def test_shares_are_contiguous_and_equal_to_within_one(count: int, world_size: int) -> None:
    shares = [Ranks(torch.device("cpu"), rank, world_size).shard(count) for rank in range(world_size)]
    assert [i for share in shares for i in range(count)[share]] == list(range(count))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("given", "expected"), [("job7", "job7"), (None, None)])
def test_the_name_of_a_launch(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if given:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", given)
    assert launch_name() == expected


def test_a_launch_without_a_name_is_its_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launch_name() == launch_name()
    assert launch_name() not in (None, "none")


@pytest.mark.parametrize(
    "text",
    [
        "[pair.cc:545] Read error [127.0.0.1]:36751: Connection reset by peer.",
        "[pair.cc:553] Connection closed by peer [127.0.0.1]:1",
        "NCCL communicator was aborted on rank 0",
        "[unbound_buffer.cc:81] Timed out waiting 600000ms for recv operation to complete",
    ],
)
def test_what_a_lost_process_looks_like(text: str) -> None:
    assert LOST.search(text)
    assert not LOST.search("mat1 and mat2 shapes cannot be multiplied")
