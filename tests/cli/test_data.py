import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.cli import main


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of ten images, the last of which is damaged."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(10):
            pixels = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    (tmp_path / "set" / "dog" / "9.png").write_bytes(b"<html>")
    return tmp_path / "set"


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", "data", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    code, shown, _ = run(capsys, monkeypatch, f"folder:{root}")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert code == 0
    assert lines[0] == f"folder:{root}: 15 images to learn from, 4 to test on"
    assert "from 12 px (short side) to 16 px (long side), median of the short side 12 px" in lines[1]
    assert "cat 8 2" in lines
    reason = "is no image in a format that is read (BMP, GIF, JPEG, PNG, TIFF, WEBP)"
    assert f"{root}/dog/9.png: {reason}" in lines
    assert lines[-1] == "look at this: 1 image cannot be used"


def test_report_of_a_set_in_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown, _ = run(capsys, monkeypatch, "digits")
    assert code == 0
    assert "all 32x32 px, grey" in shown
    assert shown.endswith("nothing to mend\n")


def test_report_for_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    code, shown, _ = run(capsys, monkeypatch, f"folder:{root}", "--json", "--seed", "1")
    record = json.loads(shown)
    assert code == 0
    assert record["classes"][0] == {"name": "cat", "train": 8, "test": 2}
    assert record["skipped"][0]["path"] == f"{root}/dog/9.png"


def test_long_lists_are_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    for i in range(30):
        (root / "cat" / f"bad{i}.png").write_bytes(b"")
    _, shown, _ = run(capsys, monkeypatch, f"folder:{root}")
    assert "  and 11 more, which --json lists" in shown.splitlines()


def test_copies_are_shown_together(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    for i in range(6):
        (root / "cat" / f"copy{i}.png").write_bytes((root / "cat" / "0.png").read_bytes())
    _, shown, _ = run(capsys, monkeypatch, f"folder:{root}")
    assert "1 image is there more than once:" in shown.splitlines()
    (line,) = [line for line in shown.splitlines() if " = " in line]
    assert line.endswith(".png = 3 more  (cat)")
    assert "look at this: 1 image is both learnt from and tested on" in shown.splitlines()


def test_pack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    code, shown, _ = run(capsys, monkeypatch, "pack", f"folder:{root}", str(out), "--on-bad-image", "skip")
    assert code == 0
    assert shown.startswith("15 images to learn from and 4 to test on, in 2 shards of 0.1 MB in all; 1 ima")
    assert shown.endswith(f"use them as shards:{out}\n")
    code, shown, _ = run(capsys, monkeypatch, f"shards:{out}")
    assert (code, "nothing to mend" in shown) == (0, True)


def test_pack_refuses_damaged_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path
) -> None:
    code, _, error = run(capsys, monkeypatch, "pack", f"folder:{root}", str(tmp_path / "shards"))
    assert code == 2
    assert error.startswith(f"convatlas: {root}: 1 image cannot be used: {root}/dog/9.png: is no image")
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["digit"], "unknown data set 'digit'; nearest: digits", id="unknown"),
        pytest.param(["folder:/no/such/place"], "/no/such/place: no such folder", id="missing"),
        pytest.param([], "requires an argument", id="nothing"),
    ],
)
def test_mistakes_end_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    code, shown, error = run(capsys, monkeypatch, *arguments)
    assert (code, shown, error.count("\n")) == (2, "", 1)
    assert message in error
