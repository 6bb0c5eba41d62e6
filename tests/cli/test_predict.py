import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from convatlas.cli import main
from convatlas.predict.predictor import Predictor
from made_images import NAMES, expected, pixels, save_images, weights_file

Run = Callable[[str], tuple[object, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with weights and five images."""
    monkeypatch.chdir(tmp_path)
    weights_file(tmp_path / "w.safetensors")
    save_images(tmp_path / "photos", 5)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(command: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["convatlas", *command.split()])
        with pytest.raises(SystemExit) as caught:
            main()
        return (caught.value.code, *capsys.readouterr())

    return call


def test_a_folder(folder: Path, run: Run) -> None:
    code, shown, errors = run("predict w.safetensors photos --top 1")
    assert (code, errors) == (0, "")
    wanted = [expected(pixels(number)) for number in range(5)]
    assert shown.splitlines() == [
        f"photos/{number:03d}.png: {NAMES[shares.argmax()]} {shares.max():.1%}"
        for number, shares in enumerate(wanted)
    ]


@pytest.mark.parametrize(
    ("command", "engine"),
    [
        pytest.param("predict w.safetensors photos", "eager", id="few-images"),
        pytest.param("predict w.safetensors photos rtsp://camera/1", "auto", id="stream"),
        pytest.param("predict w.safetensors rtsp://camera/1 --engine eager", "eager", id="as-asked"),
        pytest.param("predict w.safetensors photos --engine auto", "auto", id="auto"),
        pytest.param("predict w.safetensors photos --precision bf16", "auto", id="less-precision"),
    ],
)
def test_the_engine_is_chosen_by_what_is_asked(
    command: str, engine: str, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def stream(self: Predictor, images: object, **_: object) -> list[object]:
        used.append(self.engine)
        return []

    monkeypatch.setattr(Predictor, "stream", stream)
    code, shown, errors = run(command)
    assert (code, shown) == (0, "")
    assert ("the fastest engine" in errors) == ("rtsp" in command and engine == "auto")
    assert used == [engine]


def test_a_job_goes_on_with_the_engine_that_it_began_with(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def die(self: Predictor, *_: object) -> None:
        used.append(self.engine)
        raise ValueError("killed")

    monkeypatch.setattr(Predictor, "stream_items", die)
    command = "predict w.safetensors photos --out predictions.csv"
    monkeypatch.setattr("convatlas.predict.engine_policy._pays", lambda *_: True)
    assert run(command)[0] == 2
    monkeypatch.setattr("convatlas.predict.engine_policy._pays", lambda *_: False)
    assert run(command)[0] == 2
    assert used == ["auto", "auto"]
    assert "belongs to another job (engine 'auto', not 'eager')" in run(f"{command} --engine eager")[2]


def test_a_file_is_written(folder: Path, run: Run) -> None:
    (folder / "photos" / "002.png").write_text("nothing")
    code, shown, errors = run("predict w.safetensors photos --out predictions.csv --top 2")
    assert (code, shown, errors) == (2, "predictions.csv: 4 predictions, 1 refused\n", "")
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert [row["class_1"] for row in rows] == [
        "" if number == 2 else NAMES[expected(pixels(number)).argmax()] for number in range(5)
    ]
    assert rows[2]["error"].startswith("photos/002.png: is no image")
    code, _, errors = run("predict w.safetensors photos --out predictions.csv")
    assert (code, errors.startswith("convatlas: predictions.csv: is there already; name another file")) == (
        2,
        True,
    )


def test_class_names_from_a_file(folder: Path, run: Run) -> None:
    (folder / "names.txt").write_text("\n".join("abcdefghij"), encoding="utf-8")
    _, shown, _ = run("predict w.safetensors photos/000.png --top 1 --classes names.txt")
    assert shown.startswith(f"photos/000.png: {'abcdefghij'[expected(pixels(0)).argmax()]} ")
    (folder / "names.txt").write_text("a\nb\n")
    code, _, errors = run("predict w.safetensors photos/000.png --classes names.txt")
    assert (code, errors) == (2, "convatlas: `class_names` names 2 classes; the network has 10 logits\n")


def test_names_for_a_terminal_are_harmless(folder: Path, run: Run) -> None:
    (folder / "photos" / "000.png").rename(folder / "photos" / "a\x1b[2J.png")
    _, shown, _ = run("predict w.safetensors photos --top 1")
    assert "photos/a\\x1b[2J.png: " in shown


def test_frames_of_a_film(folder: Path, run: Run) -> None:
    av = pytest.importorskip("av")
    with av.open("film.mkv", "w") as film:
        stream = film.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for number in range(8):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels(number), format="rgb24")))
        film.mux(stream.encode(None))
    _, shown, _ = run("predict w.safetensors film.mkv --top 1")
    assert [line.partition(": ")[0] for line in shown.splitlines()] == [
        "film.mkv at 0.00 s",
        "film.mkv at 1.00 s",
    ]
    _, shown, _ = run("predict w.safetensors film.mkv --fps all --json")
    assert [json.loads(line)["frame"] for line in shown.splitlines()] == list(range(8))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param("predict w.safetensors", "name at least one image after the network", id="none"),
        pytest.param("predict w.safetensors photos --fps many", "`--fps`='many'; expected frames", id="fps"),
        pytest.param("predict w.safetensors photos --fps 0", "`--fps`=0.0; expected frames", id="fps-0"),
        pytest.param("predict w.safetensors photos --cluster ray", "add --out", id="cluster"),
        pytest.param("predict w.safetensors photos --out a.txt", "expected a name that ends in", id="out"),
        pytest.param("predict w.safetensors photos --engine fast", "--engine", id="engine"),
        pytest.param("predict w.safetensors photos --classes photos/000.png", "is no text", id="classes"),
        pytest.param("predict w.safetensors photos --batch-size 0", "`--batch-size`=0; expected", id="batch"),
        pytest.param("predict w.safetensors photos --tpo 1", "Unknown option: --tpo", id="option"),
        pytest.param("predict resnet5 photos", "nor a network, of which the nearest are", id="network"),
    ],
)
def test_bad_input(folder: Path, run: Run, command: str, message: str) -> None:
    code, shown, errors = run(command)
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_standard_input(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, names in [
        (b"photos/003.png\nphotos/001.png\n", ["photos/003.png", "photos/001.png"]),
        ((folder / "photos" / "003.png").read_bytes(), ["standard input"]),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, shown, _ = run("predict w.safetensors - --top 1")
        assert code == 0
        assert [line.partition(": ")[0] for line in shown.splitlines()] == names
        assert shown.split(": ")[1].startswith(NAMES[expected(pixels(3)).argmax()])


def test_a_reader_that_leaves(folder: Path) -> None:
    (folder / "list").write_text("photos/000.png\n" * 300)
    command = f"{sys.executable} -m convatlas predict w.safetensors - --top 1 < list | head -n 2"
    done = subprocess.run(command, shell=True, capture_output=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == b""


def test_a_terminal_gets_a_bar(folder: Path) -> None:
    import pty
    import select

    parent, child = pty.openpty()
    # What ends within half a second shows nothing: here that is a matter of the machine.
    begin = "import sys; from convatlas import cli, progress; progress.PATIENCE_S = 0.0; sys.exit(cli.main())"
    command = [sys.executable, "-c", begin, "predict", "w.safetensors", "photos", "--out", "a.jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child)
    os.close(child)
    shown = b""
    while process.poll() is None or select.select([parent], [], [], 0.1)[0]:
        if select.select([parent], [], [], 0.1)[0]:
            try:
                shown += os.read(parent, 10_000)
            except OSError:  # The other end is closed.
                break
    os.close(parent)
    process.communicate()
    assert process.returncode == 0
    assert b"5 images" in shown
