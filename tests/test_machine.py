import os
from pathlib import Path

import pytest

from convatlas import machine
from convatlas.machine import processor, share_cores, steal_time


def test_the_processor_has_a_name() -> None:
    assert processor()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, "10000", id="nothing-said"),
        pytest.param({"GOMP_SPINCOUNT": "7"}, "7", id="spins-said"),
        pytest.param({"OMP_WAIT_POLICY": "active"}, None, id="policy-said"),
    ],
)
def test_what_the_user_says_about_waiting_counts(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        pytest.param("cpu  10 20 30 40 50 60 70 250 0 0\ncpu0 1 2 3 4 5 6 7 9 0 0\n", 250, id="virtual"),
        pytest.param("cpu  10 20 30 40\n", 0, id="old-kernel"),
        pytest.param(None, 0, id="no-linux"),
    ],
)
def test_what_the_host_took_away(
    text: str | None, ticks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "COUNTERS", tmp_path / "stat")
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert steal_time() == ticks / os.sysconf("SC_CLK_TCK")
