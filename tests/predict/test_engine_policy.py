"""When `convatlas predict` seeks the fastest engine by itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from convatlas import Predictor
from convatlas.engines import worker as trial
from convatlas.engines.export import export
from convatlas.engines.exported import open_exported
from convatlas.predict import engine_policy as payoff
from convatlas.predict.engine_policy import choose_engine
from made_images import TRANSFORM, small_network


class Slow(nn.Module):
    """Takes so many seconds for an image, by a clock of its own."""

    transform = TRANSFORM

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.now = seconds, 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.now += self.seconds * len(x)
        return x.mean(dim=(1, 2, 3))[:, None]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Predictor:
    net = Slow(request.param)
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=lambda: net.now))
    return Predictor(net, class_names=["one"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred files that are called images; nobody opens them."""
    for number in range(100):
        (tmp_path / f"{number:03d}.png").touch()
    return tmp_path


def remembered(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(payoff, "is_remembered", lambda *_: answer)


@pytest.mark.parametrize(
    ("slow", "images", "is_remembered", "engine"),
    [
        pytest.param(2.0, ["."], False, "auto", id="long"),
        pytest.param(1.5, ["."], False, "eager", id="not-long-enough"),
        pytest.param(1.5, [".", "*.png"], False, "auto", id="all-arguments-count"),
        pytest.param(1.5, ["."], True, "auto", id="remembered"),
        pytest.param(0.1, ["."], True, "eager", id="remembered-and-short"),
        pytest.param(9.0, ["00*.png"], True, "eager", id="few"),
        pytest.param(9.0, ["nowhere", "-"], True, "eager", id="nothing-to-count"),
        pytest.param(0.0, ["rtsp://camera/1"], False, "auto", id="stream"),
    ],
    indirect=["slow"],
)
def test_it_pays_when_the_network_would_take_longer(
    slow: Predictor,
    images: list[str],
    is_remembered: bool,
    engine: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    remembered(monkeypatch, is_remembered)
    assert choose_engine(slow, images, fps=1.0) == engine


@pytest.mark.parametrize(("slow"), [1.0], indirect=True)
@pytest.mark.parametrize(
    ("fps", "engine"),
    [
        pytest.param(1.0, "eager", id="one-a-second"),
        pytest.param(25.0, "auto", id="each"),
        pytest.param(None, "auto", id="all"),
    ],
)
def test_frames_of_a_film_count(
    slow: Predictor, fps: float | None, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    remembered(monkeypatch, False)
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(200):
            film.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        film.mux(stream.encode(None))
    (tmp_path / "broken.mp4").write_text("nothing")
    films = [str(tmp_path / "broken.mp4"), str(tmp_path / "film.mp4")]
    assert choose_engine(slow, films, fps) == engine


def test_the_network_itself_is_timed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(monkeypatch, False)
    monkeypatch.setattr(payoff, "LONG", 1e-9)
    assert choose_engine(Predictor(small_network()), [folder], fps=1.0) == "auto"
    monkeypatch.setattr(payoff, "LONG", 1e9)
    assert choose_engine(Predictor(small_network()), [folder], fps=1.0) == "eager"


def test_a_network_in_a_file_and_a_foreign_transform_stay(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export(small_network(), tmp_path / "net.onnx")
    in_a_file = Predictor(open_exported(tmp_path / "net.onnx"))
    foreign = Predictor(Slow(1.0), transform=lambda image: torch.zeros(3, 8, 8), class_names=["one"])
    for predictor in (in_a_file, foreign):
        assert choose_engine(predictor, ["rtsp://camera/1"], fps=1.0) == "eager"
