"""The processes that train together: who this one is, and the few words they exchange.

`torchrun` starts them and says by environment variables who is who. Alone, everything here does nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import socket
import time
import uuid
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from convatlas.devices import find_device

TIMEOUT = "CONVATLAS_RANK_TIMEOUT"
"""Environment variable: seconds that ranks wait for one that is busy or gone; 120 where it is not set."""
# How gloo and NCCL say that the other end of a connection is no longer there.
LOST = re.compile(r"Connection (closed|reset|refused)|Broken pipe|NCCL|[Tt]imed out|Timeout")


class RanksError(ValueError):
    """The processes do not fit together, or one of them is gone."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them.

    Attributes:
        device: what this process trains on.
        rank: number of this process, from 0.
        world_size: number of processes.
        local_size: those of them on this machine.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's part of `count` things: a contiguous one, as long as the others' to within one."""
        begin, end = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(begin, end)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Replaces the values of `tensor` by their sums over all processes, and returns it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_object(self, value: Any) -> Any:
        """What the first process passes here, in every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Gives `tensors` the values that they have in the first process."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def check_same(self, what: str, value: str) -> None:
        """Refuses processes that differ.

        Raises:
            RanksError: in every process, if `value` is not the same in all; names them.
        """
        if self.world_size == 1:
            return
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, (socket.gethostname(), value))
        others = [f"{rank} on {host}" for rank, (host, theirs) in enumerate(values) if theirs != values[0][1]]
        if others:
            raise RanksError(f"the {what} of rank {', '.join(others)} is not that of rank 0")

    def wrap(self, net: nn.Module, unused: bool) -> nn.Module:
        """The network whose gradients are averaged over all processes.

        Every step begins from the first process's buffers, so that the statistics of batch normalisation are
        its own, and a checkpoint by it holds all there is.

        Args:
            net: on this process's device.
            unused: whether parameters may get no gradient in some step.
        """
        if self.world_size == 1:
            return net
        return DistributedDataParallel(net, find_unused_parameters=unused)


@contextlib.contextmanager
def open_ranks(device: str | None = None) -> Generator[Ranks]:
    """Joins the processes that torchrun started, or stands alone.

    Args:
        device: "cpu", "cuda" or another of torch's; None for a GPU if there is one, else the CPU.

    Raises:
        RanksError: the others do not answer, or one of them is gone.
        ValueError: there is no such device.
    """
    world_size, local_rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    chosen = find_device(device, local_rank)
    if world_size == 1:
        yield Ranks(chosen)
        return
    ours = not dist.is_initialized()
    if ours:
        _join(chosen)
    try:
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        yield Ranks(chosen, dist.get_rank(), dist.get_world_size(), local_size)
    except RuntimeError as error:  # torch's own errors are RuntimeErrors.
        if not LOST.search(str(error)):
            raise
        raise RanksError(f"another process of this training is gone ({_first_line(error)})") from error
    finally:
        if ours:
            dist.destroy_process_group()


def launch_name() -> str | None:
    """What torchrun's restarts of one launch have in common, and no other launch; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name not in (None, "", "none"):
        return name
    if name is None:
        return None
    # Launched without a name: the agent, our parent, lives as long as the launch.
    began = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return f"{socket.gethostname()}-{os.getppid()}-{began}"


def _join(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Flags and counts lie in main memory: they go by gloo, without waiting for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        patience = rank_timeout()
        store, rank, world_size = next(rendezvous("env://", timeout=patience))
        ours = PrefixStore(agree_on_life(store, rank, world_size), store)
        dist.init_process_group(backend, store=ours, rank=rank, world_size=world_size, timeout=patience)
    except (ValueError, RuntimeError) as error:
        raise RanksError(f"the other processes cannot be reached ({_first_line(error)})") from error


def agree_on_life(store: Store, rank: int, world_size: int) -> str:
    """A name that the processes of this life share, and that none of an earlier one had.

    torchrun keeps one store through its restarts, with the addresses of processes that are dead. Whoever
    reads such an address waits for nobody, so each life needs keys of its own. The number of restarts does
    not name a life: with several machines, each counts its own.

    Args:
        store: that all processes reach.
        rank: of this process.
        world_size: processes in this life.

    Raises:
        RuntimeError: the others did not answer in time.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"life/asked/{rank}", own)
        answer = f"life/answer/{rank}/{own}"
        store.wait([answer], rank_timeout())
        life = store.get(answer).decode()
        store.set(f"life/joined/{life}/{rank}", "")
        return life
    missing, late = set(range(1, world_size)), time.monotonic() + rank_timeout().total_seconds()
    while missing:
        if time.monotonic() > late:
            raise RuntimeError(f"{len(missing)} of {world_size} processes did not come")
        for other in sorted(missing):
            if store.check([f"life/asked/{other}"]):  # Perhaps by one that is dead: the living ask again.
                store.set(f"life/answer/{other}/{store.get(f'life/asked/{other}').decode()}", own)
            if store.check([f"life/joined/{own}/{other}"]):
                missing.remove(other)
        time.sleep(0.02)
    return own


def rank_timeout() -> datetime.timedelta:
    """How long ranks wait for one that is busy, for example compiling, or gone.

    Raises:
        ValueError: CONVATLAS_RANK_TIMEOUT is not a number of seconds.
    """
    text = os.environ.get(TIMEOUT, "120")
    try:
        return datetime.timedelta(seconds=check_seconds(float(text)))
    except (ValueError, OverflowError):
        raise RanksError(f"{TIMEOUT}={text!r}; expected a number of seconds, at least 1") from None


def check_seconds(seconds: float) -> float:
    """The seconds, where they are one or more.

    Raises:
        ValueError: they are fewer, or NaN.
    """
    if not seconds >= 1.0:
        raise ValueError(f"{seconds} s")
    return seconds


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
