import os

import pytest

from convatlas.machine import processor, share_cores


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
