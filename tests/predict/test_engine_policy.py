"""Which engine a predictor has: asked for, or the one that answers the workload first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convatlas
from convatlas import Predictor
from convatlas.engines import worker as trial
from convatlas.engines.export import export
from convatlas.engines.exported import open_exported
from convatlas.predict import engine_policy as payoff
from convatlas.predict.engine_policy import Workload
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
def slow(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Slow:
    net = Slow(request.param)
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=lambda: net.now))
    return net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hundred files that are called images; nobody opens them."""
    for number in range(100):
        (tmp_path / f"{number:03d}.png").touch()
    return tmp_path


def remembered(monkeypatch: pytest.MonkeyPatch, prediction: bool) -> None:
    monkeypatch.setattr(payoff, "is_remembered", lambda *_: prediction)


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
    slow: Slow,
    images: list[str],
    is_remembered: bool,
    engine: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    remembered(monkeypatch, is_remembered)
    assert Predictor(slow, class_names=["one"], workload=Workload(images)).engine == engine


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
    slow: Slow, fps: float | None, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert Predictor(slow, class_names=["one"], workload=Workload(films, fps)).engine == engine


def test_the_network_itself_is_timed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(monkeypatch, False)
    monkeypatch.setattr(payoff, "LONG", 1e-9)
    assert Predictor(small_network(), workload=Workload([folder])).engine == "auto"
    monkeypatch.setattr(payoff, "LONG", 1e9)
    assert Predictor(small_network(), workload=Workload([folder])).engine == "eager"


def test_a_network_in_a_file_and_a_foreign_transform_stay(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export(small_network(), tmp_path / "net.onnx")
    live = Workload(["rtsp://camera/1"])
    assert Predictor(open_exported(tmp_path / "net.onnx"), workload=live).engine == "eager"
    foreign = Predictor(
        Slow(1.0), transform=lambda image: torch.zeros(3, 8, 8), class_names=["one"], workload=live
    )
    assert foreign.engine == "eager"


@pytest.mark.parametrize("slow", [1.0], indirect=True)
@pytest.mark.parametrize(
    ("workload", "engine"),
    [
        pytest.param(None, "eager", id="not-known"),
        pytest.param(0, "eager", id="none"),
        pytest.param(63, "eager", id="few"),
        pytest.param(179, "eager", id="not-long-enough"),
        pytest.param(180, "auto", id="long"),
        pytest.param(Workload(), "eager", id="not-known-in-words"),
        pytest.param(Workload(9, begun="auto"), "auto", id="begun-by-auto"),
        pytest.param(Workload(999, begun="eager"), "eager", id="begun-by-eager"),
    ],
)
def test_a_number_of_images_and_a_begun_job(
    slow: Slow, workload: Workload | int | None, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(monkeypatch, False)
    assert Predictor(slow, class_names=["one"], workload=workload).engine == engine


@pytest.mark.parametrize("slow", [1.0], indirect=True)
@pytest.mark.parametrize(("count", "engine"), [(64, "auto"), (63, "eager")])
def test_a_remembered_choice_pays_sooner_but_not_for_few(
    slow: Slow, count: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered(monkeypatch, True)
    assert Predictor(slow, class_names=["one"], workload=count).engine == engine


def test_what_is_asked_for_is_used_and_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Workload(["rtsp://camera/1"])
    predictor = Predictor(small_network(), engine="eager", workload=live)
    assert predictor.engine == "eager"
    assert Predictor(small_network(), engine="auto", workload=1).engine == "auto"
    assert Predictor(small_network(), engine="eager", workload=Workload(9, begun="auto")).engine == "eager"
    assert Predictor(small_network(), precision="bf16").engine == "auto"
    with pytest.raises(AttributeError, match="engine"):
        predictor.engine = "auto"  # type: ignore[misc]


def test_load_and_evaluate_decide_alike(lenet_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, str]] = []
    real = payoff.choose_engine

    def choose(
        engine: object, network: nn.Module, transform: object, workload: Workload, **given: Any
    ) -> Any:
        found = real(engine, network, transform, workload, **given)
        made.append((workload.images, found))
        return "eager"

    monkeypatch.setattr("convatlas.predict.predictor.choose_engine", choose)
    monkeypatch.setattr(payoff, "LONG", 1e-9)
    convatlas.load(lenet_run)
    convatlas.load(lenet_run, workload=1000)
    tested = len(convatlas.load_source("digits").test)
    convatlas.evaluate(str(lenet_run))
    convatlas.evaluate(str(lenet_run), protocol="10crop")
    assert made == [(None, "eager"), (1000, "auto"), (tested, "auto"), (10 * tested, "auto")]
