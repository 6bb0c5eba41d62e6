"""`convatlas bench NAME...` and `convatlas choose`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from convatlas.cli import main


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A current folder and a cache that are empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


QUICK = ("--seconds", "0", "--threads", "1")


def test_a_table_for_each_batch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, errors = run(capsys, monkeypatch, "bench", "lenet5", "--batch-size", "1,4", *QUICK)
    assert (code, errors) == (0, "")
    head, _, first, second = shown.splitlines()
    assert head.split()[:3] == ["network", "engine", "batch"]
    assert first.split()[:3] == ["lenet5", "eager", "1"]
    assert second.split()[:3] == ["lenet5", "eager", "4"]


def test_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    arguments = ("bench", "mobilenet_v1_025", *QUICK, "--json", "-o", "rows.json", "--image", "chart.png")
    code, shown, _ = run(capsys, monkeypatch, *arguments)
    assert (code, shown) == (0, "")
    (found,) = json.loads((here / "rows.json").read_text())
    assert found["top1"] == 50.6
    assert (here / "chart.png").read_bytes().startswith(b"\x89PNG")
    # What was measured is not measured again.
    limits = ("--max-latency", "100s", "--max-params", "10M", "--max-macs", "1.5G", "--min-top1", "50")
    code, shown, _ = run(capsys, monkeypatch, "choose", "mobilenet_v1_025", *limits, "--threads", "1")
    assert code == 0
    assert f"{found['latency'] * 1e3:.2f}" in shown
    assert shown.endswith("1 fit\n")


def test_csv(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run(
        capsys, monkeypatch, "bench", "lenet5", "--format", "csv", "--engines", "eager,eager", *QUICK
    )
    assert code == 0
    assert shown.startswith("network,engine,batch,")
    assert len(shown.splitlines()) == 2


def test_compare_needs_no_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown, _ = run(capsys, monkeypatch, "choose", "--max-params", "10M", "--min-top1", "78")
    assert code == 0
    assert "efficientnet_b1" in shown
    assert "below 78 % top-1" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["bench", "lenet6"], "unknown network 'lenet6'", id="network"),
        pytest.param(
            ["bench", "lenet5", "--batch-size", "1,x"], "`--batch-size`='1,x'; expected", id="batch"
        ),
        pytest.param(["bench", "lenet5", "--engines", "onyx"], "unknown engine 'onyx'", id="engine"),
        pytest.param(["bench", "lenet5", "--format", "csv", "--json"], "are both given", id="formats"),
        pytest.param(["bench", "lenet5", "--profile-machine"], "expected it without networks", id="profile"),
        pytest.param(["bench", "lenet5", "-o", "gone/rows"], "there is no folder gone", id="folder"),
        pytest.param(["choose", "--max-latency", "10"], "`max-latency`='10'; expected a time", id="latency"),
        pytest.param(["choose", "--max-params", "10Q"], "`max-params`='10Q'; expected a number", id="params"),
        pytest.param(["choose", "--min-top1", "0.7"], "`--min-top1`=0.7; expected per cent", id="top1"),
    ],
)
def test_bad_input_gets_one_line_and_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    code, shown, errors = run(capsys, monkeypatch, *arguments)
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
