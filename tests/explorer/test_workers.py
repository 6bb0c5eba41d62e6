"""Worker processes: what ends one, and what that costs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from convatlas.explorer.settings import BadRequestError, read_settings
from convatlas.explorer.workers import BusyError, Workers

LENET = read_settings("lenet5", {})
PARAMS_OF_LENET = '"params": 61706'


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    """One process, with room for one request to wait."""
    found = Workers(1, waiting=1, deadline_s=60.0)
    found.start()
    yield found
    found.close()


def size(pool: Workers, settings: Any = LENET) -> Any:
    return asyncio.run(pool.run("size_text", settings, "json", False))


def test_a_task_runs_in_another_process(pool: Workers) -> None:
    assert PARAMS_OF_LENET in size(pool)
    assert pool.is_ready
    assert os.getpid() not in pool.pids


def test_a_killed_worker_is_replaced_and_the_request_answered(pool: Workers) -> None:
    before = pool.pids
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert PARAMS_OF_LENET in size(pool)
    assert not set(before) & set(pool.pids)


def test_errors_of_a_task_are_its_message(pool: Workers) -> None:
    with pytest.raises(BadRequestError, match=r"smallest input that works is \(1, 32, 32\)"):
        size(pool, read_settings("lenet5", {"input": "9"}))
    assert PARAMS_OF_LENET in size(pool)


def test_one_more_than_may_wait_is_refused_at_once(pool: Workers) -> None:
    async def crowd() -> list[Any]:
        asked = [pool.run("size_text", LENET, "json", False) for _ in range(5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(crowd())
    assert [isinstance(each, BusyError) for each in found] == [False, False, True, True, True]
    assert "waiting; try again" in str(found[-1])
    assert PARAMS_OF_LENET in size(pool)


def test_a_task_that_takes_too_long_ends_and_the_next_is_answered(pool: Workers) -> None:
    pool.deadline_s = 0.001
    with pytest.raises(BadRequestError, match=r"takes more than 0\.001 s"):
        size(pool, read_settings("nasnet_a_large", {}))
    pool.deadline_s = 60.0
    assert PARAMS_OF_LENET in size(pool)


def test_a_network_too_large_for_the_limit_is_refused(site: Any) -> None:
    found = site.get("/api/v1/size?network=resnet18&input=65536&batch=1048576")
    assert found.status_code == 200, "sizes need no storage"
