"""A study from its knobs to its report, on the one that needs no training, made small."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from convatlas.errors import UnknownNameError
from convatlas.studies.context import run_study
from convatlas.studies.index import CLAIMS
from convatlas.studies.report import describe, write_html
from convatlas.studies.study import find_study

SMALL: dict[str, Any] = {"chans": (8,), "kernels": (3,), "px": 8, "batch_size": 1, "seeds": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    run_study("depthwise", out=root, **SMALL)
    return root


@pytest.mark.parametrize("name", CLAIMS)
def test_every_study_is_complete(name: str) -> None:
    study = find_study(name)
    assert study.name == name
    assert study.source
    assert study.protocol
    assert study.refuted_by
    assert list(study.presets) == ["quick", "standard", "full"]
    assert study.claim in describe(study)


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("quik", {}, r"unknown preset 'quik'; nearest: quick"),
        ("quick", {"kernel": 3}, r"study depthwise has no knob `kernel` \(received 3\); nearest: kernels"),
        ("quick", {"px": "big"}, r"`px`='big'; expected int, for example 28"),
        ("quick", {"seeds": 0}, r"`seeds`=0; expected a whole number of at least 1"),
    ],
    ids=["preset", "knob", "kind", "range"],
)
def test_bad_knobs(preset: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_study("depthwise", preset=preset, out=tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_unknown_study() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown study 'depth-wise'; nearest: depthwise"):
        find_study("depth-wise")


def test_record_and_report(finished: Path) -> None:
    folder = finished / "depthwise" / "quick"
    record = json.loads((folder / "study.json").read_text())
    page = (folder / "report.md").read_text()
    assert record["knobs"]["chans"] == [8]
    assert f"# depthwise: {record['verdict']}" in page
    assert "convatlas study run depthwise --preset quick --set 'chans=[8]' --set 'kernels=[3]'" in page
    assert "672 over 2160" in page
    ratio = next(entry for entry in record["findings"] if entry["name"].startswith("3x3, N = 8"))
    assert ratio["value"] == pytest.approx(1 / 8 + 1 / 9)
    effect = record["findings"][-1]
    assert len(effect["values"]) == 2
    low, high = effect["interval"]["low"], effect["interval"]["high"]
    assert low <= sum(effect["values"]) / 2 <= high


def test_one_seed_gives_no_interval_and_says_so(tmp_path: Path) -> None:
    folder, record = run_study("depthwise", out=tmp_path, **(SMALL | {"seeds": 1}))
    assert "interval" not in record["findings"][-1]
    assert record["verdict"] == "no evidence at this budget"
    assert "One seed gives no interval" in (folder / "report.md").read_text()


def test_html_holds_everything(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "studies.html"
    assert write_html(finished, path) == 1
    page = path.read_text()
    image = (finished / "depthwise" / "quick" / "depthwise.png").read_bytes()
    assert f'src="data:image/png;base64,{base64.b64encode(image).decode()}"' in page
    assert not re.search(r'(src|href)="(?!data:image|#)', page), "it must open without a network"
    assert "<table>" in page
    assert CLAIMS["depthwise"] in page


def test_html_needs_a_finished_study(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished study there; run one, for example"):
        write_html(tmp_path, tmp_path / "studies.html")
