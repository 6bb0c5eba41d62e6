import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.cli import main
from made_images import NAMES, expected, pixels, save_images, weights_file

Run = Callable[[str], tuple[object, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with weights, and with labelled images of two classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights_file(tmp_path / "w.safetensors")
    for number in (2, 5):
        save_images(tmp_path / "data" / NAMES[number], 6)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(command: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["convatlas", *command.split()])
        with pytest.raises(SystemExit) as caught:
            main()
        return (caught.value.code, *capsys.readouterr())

    return call


def test_eval(place: Path, run: Run) -> None:
    code, shown, errors = run("eval w.safetensors --data folder:data --split all -o report")
    predictions = [int(expected(pixels(i)).argmax()) for i in range(6)]
    right = predictions.count(2) + predictions.count(5)
    assert (code, errors) == (0, "")
    lines = shown.splitlines()
    assert lines[0] == "w.safetensors on folder:data (all), single"
    assert lines[1].startswith(f"top-1 {right / 12:.2%} (95 % interval ")
    assert lines[1].endswith(f", {right} of 12 images")
    assert lines[-1] == "everything is in report: open report.md there"
    assert (place / "report" / "report.md").is_file()


def test_eval_for_machines(place: Path, run: Run) -> None:
    (place / "data" / NAMES[2] / "bad.png").write_text("nothing")
    command = "eval w.safetensors --data folder:data --split all --protocol multiscale --scales 32,40 --flip"
    code, shown, errors = run(f"{command} --ensemble w.safetensors w.safetensors --average logits --json")
    figures = json.loads(shown)
    assert code == 2
    assert errors.startswith("convatlas: left out ")
    assert "bad.png: is no image" in errors
    assert figures["networks"] == ["w.safetensors"] * 3
    assert figures["images"] == 12
    assert figures["protocol"] == {
        "name": "multiscale",
        "scales": [[32, 40]] * 3,
        "flip": True,
        "average": "logits",
        "views": 4,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("", "`data`: say on which images, such as folder:PATH", id="no data"),
        pytest.param("--data folder:data --scales big", "`--scales`='big'; expected px", id="scales"),
        pytest.param("--data folder:data --weights ema", "w.safetensors: no such run folder", id="weights"),
    ],
)
def test_eval_of_what_cannot_be(place: Path, run: Run, options: str, message: str) -> None:
    code, shown, errors = run(f"eval w.safetensors {options}")
    assert (code, shown) == (2, "")
    assert errors.startswith(f"convatlas: {message}")
    assert errors.count("\n") == 1


def test_features(place: Path, run: Run) -> None:
    code, shown, errors = run("features w.safetensors data --stage 1 -o f.npz")
    what = "12 numbers each (pool, stage 1 of 0 to 1, stride 2 px)"
    assert (code, shown, errors) == (0, f"f.npz: 12 images, {what}\n", "")
    with np.load(place / "f.npz") as kept:
        assert kept["features"].shape == (12, 12)
        assert str(kept["network"]) == "w.safetensors"


def test_features_as_lines(place: Path, run: Run) -> None:
    (place / "bad.png").write_text("nothing")
    code, shown, errors = run(
        f"features w.safetensors bad.png data/{NAMES[2].replace(' ', '?')}/000.png --stage 0"
    )
    (line,) = shown.splitlines()
    assert (code, len(json.loads(line)["features"])) == (2, 12)
    assert errors.startswith("convatlas: bad.png: is no image")


def test_features_without_images(place: Path, run: Run) -> None:
    assert run("features w.safetensors")[2] == "convatlas: name at least one image after the network\n"


def test_explain(place: Path, run: Run) -> None:
    save_images(place / "p", 1)
    code, shown, errors = run("explain w.safetensors p/000.png -o cam.png --no-check")
    shares = expected(pixels(0))
    results = f"{NAMES[shares.argmax()]} {shares.max():.1%}: cam.png (stem, 32x32 places)\n"
    assert (code, shown, errors) == (0, results, "")
    with Image.open(place / "cam.png") as image:
        assert image.format == "PNG"


def test_each_image_of_a_folder_is_explained_in_a_file_of_its_own(place: Path, run: Run) -> None:
    save_images(place / "p", 2)
    (place / "p" / "bad.png").write_text("nothing")
    code, shown, errors = run("explain w.safetensors p --theme dark --format svg")
    assert code == 2
    assert errors.startswith("convatlas: p/bad.png: is no image")
    assert sorted(path.name for path in (place / "explained").iterdir()) == ["000.svg", "001.svg"]
    figures = [(place / "explained" / name).read_text(encoding="utf-8") for name in ("000.svg", "001.svg")]
    assert figures[0] != figures[1] and all("#10161D" in figure for figure in figures)
    # The check is made unless it is left out, and said of each image.
    assert shown.count("(rank correlation ") == 2 and "explained/001.svg" in shown
    assert run("explain w.safetensors p/*.png -o one.png")[2].startswith(
        "convatlas: `--out`='one.png' is one file, and there are 3 images"
    )


def test_explain_by_another_class_and_method(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_images(place / "p", 1)
    words = ["explain", "w.safetensors", "p/000.png", "-o", "cam.png", "--class", "class 4", "--stage", "-1"]
    monkeypatch.setattr(sys, "argv", ["convatlas", *words, "--method", "hirescam", "--scale", "1"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    code, shown, _ = run("explain w.safetensors p/000.png -o cam.pdf --method occlusion --window 12")
    assert code == 0 and "(input, 14x14 places; " in shown
    assert (place / "cam.pdf").read_bytes().startswith(b"%PDF")
    assert run("explain w.safetensors p/000.png -o cam.jpg")[2].startswith("convatlas: `--out`='cam.jpg'")
    assert (
        "unknown method 'gradcam'; nearest: grad-cam"
        in run("explain w.safetensors p/000.png --method gradcam")[2]
    )


def test_maps(place: Path, run: Run) -> None:
    save_images(place / "p", 2)
    code, shown, errors = run("maps w.safetensors p --stage 0 --units 6 --format svg --theme print")
    assert (code, errors) == (0, "")
    assert shown.splitlines()[1].startswith("p/001.png: maps/001.svg (stem, stage 0 of 0 to 1")
    assert "the 6 strongest of 12 units" in (place / "maps" / "000.svg").read_text(encoding="utf-8")
    assert run("maps w.safetensors")[2] == "convatlas: name at least one image after the network\n"
