"""A study from its protocol to its report: kinds of runs, hashes, the ledger, the page."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from convatlas.errors import UnknownNameError
from convatlas.studies.index import CLAIMS
from convatlas.studies.page import read_records, write_html
from convatlas.studies.protocol import PILOT_SEED, is_frozen, make_plan
from convatlas.studies.report import describe
from convatlas.studies.run import run_all, run_study
from convatlas.studies.study import find_study

SMALL: dict[str, Any] = {
    "data": "digits",
    "images": 60,
    "test_images": 40,
    "px": 8,
    "epochs": 1,
    "seeds": 2,
    "batch_size": 60,
    "grid": (0.05,),
    "kernel": 5,
    "width": 2,
    "stages": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies")
    run_study("small-filters", out=root, **SMALL)
    return root


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A root that may be spoilt, and the folder of the run in it."""
    import shutil

    shutil.copytree(finished / "small-filters", tmp_path / "small-filters")
    return tmp_path, next((tmp_path / "small-filters").glob("quick-pilot-*"))


@pytest.mark.parametrize("name", CLAIMS)
def test_every_study_is_complete_and_frozen(name: str) -> None:
    study = find_study(name)
    assert study.name == name
    assert study.source
    assert list(study.presets) == ["quick", "standard", "full"]
    assert study.claim in describe(study)
    assert any(clause.decides for clause in study.clauses)
    for preset in study.presets:
        plan = make_plan(study, preset, {})
        assert is_frozen(study, preset, plan.digest), "run scripts/freeze_protocols.py, with a new version"
        assert plan.knobs.seeds >= 3


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


def test_kinds_of_runs_have_seeds_of_their_own() -> None:
    study = find_study("degradation")
    frozen, again = make_plan(study, "quick", {}), make_plan(study, "quick", {}, repeat=2)
    pilot, turned = make_plan(study, "quick", {}, pilot=True), make_plan(study, "quick", {"epochs": 9})
    assert [plan.kind for plan in (frozen, again, pilot, turned)] == ["protocol", "repeat", "pilot", "pilot"]
    firsts = [plan.knobs.first_seed for plan in (frozen, again, pilot, turned)]
    assert firsts == [0, 2000, PILOT_SEED, PILOT_SEED]
    assert frozen.digest == again.digest == pilot.digest != turned.digest
    assert (frozen.folder, again.folder) == ("quick", "quick-repeat2")
    with pytest.raises(ValueError, match="`repeat`=1 with epochs changed; only the frozen protocol"):
        make_plan(study, "quick", {"epochs": 9}, repeat=1)
    with pytest.raises(ValueError, match="`repeat`=-1; expected 0 or more"):
        make_plan(study, "quick", {}, repeat=-1)


def test_record_report_and_ledger(copied: tuple[Path, Path]) -> None:
    _, folder = copied
    record, page = json.loads((folder / "study.json").read_text()), (folder / "report.md").read_text()
    assert record["kind"] == "pilot"
    assert record["knobs"]["first_seed"] == PILOT_SEED
    assert record["verdict"] == "no evidence at this budget"
    assert "2 independent values, at least 3 needed" in record["objections"]
    assert any("best rate at the edge of the grid" in text for text in record["objections"])
    assert "**This is a pilot**" in page
    assert f"hash `{record['hash']}`" in page
    assert "| pilot, quick | 2 |" in page
    assert "convatlas study run small-filters --preset quick --set 'data=\"digits\"'" in page
    effect = record["effects"][0]
    assert effect["images"] == 40
    assert effect["interval"]["low"] <= sum(effect["values"]) / 2 <= effect["interval"]["high"]
    lines = [json.loads(x) for x in (folder.parent / "ledger.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["begun, not finished", record["verdict"]]


def test_trainings_are_used_again(finished: Path) -> None:
    said: list[str] = []
    run_study("small-filters", out=finished, log=said.append, **SMALL)
    assert len(said) == 9  # three arms, one trial and two seeds each
    assert all(line.endswith("(was there)") for line in said)


def test_a_run_of_another_protocol_gets_no_verdict(copied: tuple[Path, Path]) -> None:
    root, folder = copied
    stored = json.loads((folder / "protocol.json").read_text())
    stored["protocol"]["knobs"]["epochs"] = 77
    (folder / "protocol.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"no verdict: its runs were made by protocol \w+ \(version 2\)"):
        run_study("small-filters", out=root, **SMALL)
    ((_, record),) = read_records(root)
    assert record["verdict"] == "no verdict"
    assert "the protocol stored beside its runs is" in record["withheld"]
    write_html(root, root / "studies.html")
    assert "small-filters: no verdict" in (root / "studies.html").read_text()


@pytest.mark.parametrize("spoilt", ["budget", "protocol is gone"])
def test_a_report_that_does_not_fit_its_protocol(copied: tuple[Path, Path], spoilt: str) -> None:
    root, folder = copied
    record = json.loads((folder / "study.json").read_text())
    if spoilt == "budget":
        record["knobs"]["epochs"] = 3
        (folder / "study.json").write_text(json.dumps(record))
    else:
        (folder / "protocol.json").unlink()
    ((_, found),) = read_records(root)
    assert found["verdict"] == "no verdict"
    assert spoilt.split()[0] in found["withheld"]


def test_html_holds_everything(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "studies.html"
    assert write_html(finished, path) == 1
    page = path.read_text()
    folder = next((finished / "small-filters").glob("quick-pilot-*"))
    image = (folder / "small-filters.png").read_bytes()
    assert f'src="data:image/png;base64,{base64.b64encode(image).decode()}"' in page
    assert not re.search(r'(src|href)="(?!data:image|#)', page), "it must open without a network"
    assert "<table>" in page
    assert CLAIMS["small-filters"] in page


def test_html_needs_a_finished_study(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished study there; run one, for example"):
        write_html(tmp_path, tmp_path / "studies.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "`workers`=0; expected at least 1"),
        ({"cluster": "slurm"}, "`cluster`='slurm'; expected ray"),
        ({"names": ["nothing"]}, "unknown study 'nothing'"),
    ],
)
def test_bad_requests_for_all(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_all(out=tmp_path, **arguments)


def test_all_are_run_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int, str]] = []

    def pretend(one: tuple[str, str, int, str]) -> tuple[str, str]:
        asked.append(one)
        return one[0], "holds"

    monkeypatch.setattr("convatlas.studies.run._run_one", pretend)
    found = run_all(["dense", "loss"], preset="standard", repeat=1, workers=2, out=tmp_path)
    assert found == {"dense": "holds", "loss": "holds"}
    assert sorted(asked) == [(name, "standard", 1, str(tmp_path)) for name in ("dense", "loss")]
