import io
import sys
from pathlib import Path

import numpy as np
import pytest

from convatlas import Predictor
from convatlas.data.image_files import ImageError
from convatlas.predict.inputs import find_items, list_files
from convatlas.predict.outputs import Prediction, Skipped
from convatlas.predict.video import read_frames
from made_images import save_images, small_network

av = pytest.importorskip("av")

RATE = 10
FRAMES = 35


def make_film(path: Path, *, form: str | None = None, frames: int = FRAMES, width: int = 64) -> Path:
    """A film whose grey says which frame it is: five levels a frame."""
    with av.open(str(path), "w", format=form) as film:
        stream = film.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        stream.bit_rate = 10_000_000
        for number in range(frames):
            grey = np.full((48, width, 3), 40 + 5 * (number % FRAMES), np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        film.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.mark.parametrize(
    ("fps", "numbers"),
    [
        pytest.param(1.0, [0, 10, 20, 30], id="one-a-second"),
        pytest.param(2.0, [0, 5, 10, 15, 20, 25, 30], id="two"),
        pytest.param(4.0, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32], id="four"),
        pytest.param(0.5, [0, 20], id="one-in-two-seconds"),
        pytest.param(100.0, list(range(FRAMES)), id="more-than-there-are"),
        pytest.param(None, list(range(FRAMES)), id="all"),
    ],
)
def test_frames_that_are_taken(film: Path, fps: float | None, numbers: list[int]) -> None:
    frames = list(read_frames(str(film), "film", fps))
    assert [frame.number for frame in frames] == numbers
    assert [frame.seconds for frame in frames] == pytest.approx(
        [number / RATE for number in numbers], abs=1e-3
    )
    for frame in frames:
        pixels = frame.pixels()
        assert pixels.shape == (48, 64, 3)
        assert pixels.mean() == pytest.approx(40 + 5 * frame.number, abs=2)


def test_predictions_on_a_film(film: Path) -> None:
    predictor = Predictor(small_network(), batch_size=2)
    results = predictor.predict(film, fps=2)
    assert [(entry.frame, entry.seconds) for entry in results] == [
        (5 * k, pytest.approx(0.5 * k, abs=1e-3)) for k in range(7)
    ]
    assert {entry.image for entry in results} == {str(film)}
    pixels = next(frame for frame in read_frames(str(film), "", None) if frame.number == 10).pixels()
    (alone,) = predictor.predict(pixels)
    assert isinstance(alone, Prediction)
    assert isinstance(results[2], Prediction)
    assert results[2].label == alone.label
    assert results[2].probability == pytest.approx(alone.probability, abs=1e-5)


@pytest.mark.parametrize("form", ["mpegts", "matroska", "mpeg"])
def test_a_film_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    content = make_film(tmp_path / "film", form=form).read_bytes()

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("a pipe")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(content)))
    items = list(find_items("-", 1.0))
    assert [item.name for item in items] == ["standard input"] * 4


def test_a_film_over_http(film: Path) -> None:
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(film.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/film.mp4"
        numbers = [item.frame for item in find_items(address, 1.0)]
        server.shutdown()
    assert numbers == [0, 10, 20, 30]


def test_a_film_held_upright(tmp_path: Path) -> None:
    path = tmp_path / "upright.mp4"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :32] = 255
        film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        film.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    # The track's matrix in its header (ISO 14496-12, 8.3.2), set to a quarter turn clockwise.
    at = content.index(b"tkhd") + 4 + 40
    one, none = (65536).to_bytes(4, "big"), bytes(4)
    content[at : at + 20] = none + one + none + (-65536 % 2**32).to_bytes(4, "big") + none
    path.write_bytes(content)
    (frame,) = read_frames(str(path), "", None)
    pixels = frame.pixels()
    assert pixels.shape == (64, 48, 3)
    assert pixels[:20].mean() > 240  # the white left side is now above
    assert pixels[-20:].mean() < 15


def test_a_film_that_breaks_off(film: Path, tmp_path: Path) -> None:
    whole = make_film(tmp_path / "whole.ts", form="mpegts", frames=100).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[: len(whole) // 2])
    results = Predictor(small_network()).predict(path, fps=None)
    assert 10 < len(results) < 100
    assert all(isinstance(entry, Prediction) for entry in results[:10])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"nothing of the kind" * 100, "no film, or damaged", id="text"),
        pytest.param(b"", "no film, or damaged", id="empty"),
        pytest.param(None, "no such file", id="missing"),
    ],
)
def test_what_is_no_film(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    (image,) = save_images(tmp_path, 1)
    first, second = Predictor(small_network()).predict([path, image])
    assert isinstance(first, Skipped)
    assert first.reason.startswith(f"{path}: {reason}")
    assert isinstance(second, Prediction)


def test_a_film_without_images(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    with pytest.raises(ImageError, match="has no moving image in it"):
        list(read_frames(str(path), str(path)))


def test_films_are_told_by_their_names(tmp_path: Path, film: Path) -> None:
    save_images(tmp_path, 1)
    assert list_files([film, tmp_path]) == [str(film), str(tmp_path / "000.png")]


def test_without_the_package(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="films are read by PyAV: pip install av"):
        Predictor(small_network()).predict(film)
