"""Films: frames of a file or stream, all or some a second. Read by PyAV, FFmpeg's binding."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convatlas.data.image_files import MAX_PIXELS, ImageError

FILMS = (
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc",
    ".ivf", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts",
    ".mxf", ".nut", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
)  # fmt: skip

STREAMS = ("http://", "https://", "rtmp://", "rtsp://", "tcp://", "udp://")
"""How an address begins that FFmpeg opens."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a film.

    Attributes:
        number: among all frames, counted from 0.
        seconds: from the beginning.
        pixels: gives it as (H, W, 3) of uint8, RGB, turned as it is to be seen.
    """

    number: int
    seconds: float
    pixels: Callable[[], NDArray[np.uint8]]


def read_frames(source: str | BinaryIO, name: str, fps: float | None = 1.0) -> Iterator[Frame]:
    """Decodes a film; frames that are not taken are not converted.

    Args:
        source: a file, an address or an open stream, which is read from where it stands.
        name: for messages.
        fps: frames a second that are taken: the first one, and each one that is shown when the next is due.
            None for all.

    Raises:
        ImageError: it cannot be read, or from some place on not further.
        ValueError: PyAV is not installed.
    """
    av = _require_av()
    due = 0.0
    try:
        with av.open(source) as film:
            if not film.streams.video:
                raise ImageError(f"{name}: has no moving image in it")
            stream = _moving(film)
            _check_size(name, stream.codec_context)
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 25)
            start = None
            for number, frame in enumerate(film.decode(stream)):
                _check_size(name, frame)
                at = number / rate if frame.time is None else float(frame.time)
                start = at if start is None else start
                seconds = at - start
                reached = seconds + 0.5 / rate  # The container's clock rounds: half a frame is no delay.
                if fps is None or reached >= due:
                    due = 0.0 if fps is None else (math.floor(reached * fps) + 1) / fps
                    yield Frame(number, seconds, functools.partial(_pixels, frame))
            if start is None:
                raise ImageError(f"{name}: holds no frame")
    except ImageError:
        raise
    except Exception as error:  # What a damaged film makes PyAV raise need not be an error of FFmpeg's.
        raise ImageError(f"{name}: {_reason(error)}") from None


def _moving(film: Any) -> Any:
    """The first stream that moves: some films begin with their cover."""
    streams = film.streams.video
    return next((stream for stream in streams if "attached_pic" not in _disposition(stream)), streams[0])


def _disposition(stream: Any) -> str:
    return str(getattr(stream, "disposition", ""))


def _pixels(frame: Any) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(pixels, turns) if turns else pixels


def _check_size(name: str, image: Any) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {image.width}x{image.height} px; the largest that is read has {MAX_PIXELS:,} px"
        )


def _reason(error: Any) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"no film, or damaged ({getattr(error, 'strerror', None) or type(error).__name__})"


def count_frames(source: str, fps: float | None = 1.0) -> int:
    """About how many frames `read_frames` takes from a film, as its header says; 0 where that says nothing.

    Raises:
        ValueError: PyAV is not installed.
    """
    av = _require_av()
    try:
        with av.open(source) as film:
            stream = _moving(film)
            rate = float(stream.average_rate or 25)
            seconds = film.duration / av.time_base if film.duration else stream.frames / rate
    except Exception:  # As in `read_frames`, which says why.
        return 0
    return math.ceil(seconds * (rate if fps is None else min(fps, rate)))


def is_film(name: str) -> bool:
    """Whether a file or address is read as a film."""
    return name.lower().endswith(FILMS) or name.startswith(STREAMS)


def _require_av() -> Any:
    try:
        import av
        import av.logging
    except ImportError:
        raise ValueError("films are read by PyAV: pip install av, or '.[video]' in a checkout") from None
    av.logging.set_level(av.logging.PANIC)  # What goes wrong is said once, by us.
    return av
