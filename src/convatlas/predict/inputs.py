"""What a user hands over as images: files, folders, patterns, films, arrays, standard input."""

from __future__ import annotations

import dataclasses
import glob
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convatlas.data.image_files import ImageError, decode_image, plain_image
from convatlas.data.listing import SUFFIXES, is_hidden
from convatlas.predict.video import STREAMS, count_frames, is_film, read_frames

STDIN = "-"

MAX_BYTES = 2**30
"""Larger files are refused unread: the largest image that is decoded has fewer bytes."""

Pixels = Callable[[], Any]
Content = Path | bytes | Pixels | Any | ImageError


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One image that is to be read.

    Attributes:
        name: how predictions call it.
        content: a file, its bytes, a PIL image, an array, a tensor, a function that gives an array, or why
            there is no image.
        frame: of a film, counted from 0; None for an image.
        seconds: where in the film it is shown; None for an image.
    """

    name: str
    content: Content
    frame: int | None = None
    seconds: float | None = None


def find_items(images: Any, fps: float | None = 1.0) -> Iterator[Item]:
    """Every image that is meant, in order; files of a folder are sorted by name.

    Args:
        images: a file, a folder (with all below it), a pattern such as "photos/*.jpg", a film, "-" for
            standard input, a PIL image, an array or tensor of one image or many, or an iterable of these.
        fps: frames a second that are taken from a film; None for all.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(images, str | os.PathLike):
        yield from _named(os.fspath(images), fps)
    elif isinstance(images, Image.Image | np.ndarray | Tensor):
        yield from _in_memory(images, "image")
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        for number, entry in enumerate(images):
            if isinstance(entry, str | os.PathLike):
                yield from _named(os.fspath(entry), fps)
            else:
                yield from _in_memory(entry, f"image {number}")
    else:
        raise TypeError(
            f"`images` is a {type(images).__name__}; expected paths, PIL images, arrays, tensors or an "
            "iterable of these"
        )


def list_files(arguments: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The files that arguments mean, before any is opened; what means none stands for itself.

    Args:
        arguments: files, folders, patterns, films, and "-" for names of files on standard input.
    """
    found: list[str] = []
    for argument in arguments:
        text = os.fspath(argument)
        found += _names_on_stdin(_stdin()) if text == STDIN else list(_expanded(text))
    return found


def count_items(arguments: Iterable[str | os.PathLike[str]], fps: float | None, most: int) -> int:
    """About how many images `find_items` finds, before any is opened; counting ends at `most`.

    What comes by standard input or from a live stream counts as nothing.

    Raises:
        ValueError: there is a film, and PyAV is not installed.
    """
    counted = 0
    for argument in arguments:
        text = os.fspath(argument)
        if text == STDIN or text.startswith(STREAMS):
            continue
        for name in _expanded(text):
            counted += count_frames(name, fps) if is_film(name) else 1
            if counted >= most:
                return most
    return counted


def read_pixels(item: Item, least_side: int | None = None) -> Tensor:
    """Reads an image: (3, H, W) of uint8, RGB.

    Args:
        item: what is read.
        least_side: px that a JPEG's shorter side must keep, where it may be decoded smaller than it is.

    Raises:
        ImageError: it cannot be used; the message names it and says why.
    """
    content = item.content
    if isinstance(content, ImageError):
        raise content
    if isinstance(content, Path):
        return decode_image(_read_file(content), item.name, least_side)
    if isinstance(content, bytes):
        return decode_image(content, item.name, least_side)
    if isinstance(content, Image.Image):
        return _from_image(content, item.name)
    if isinstance(content, Tensor):
        return _from_tensor(content, item.name)
    return _from_array(_frame(content, item.name) if callable(content) else content, item.name)


def _frame(content: Pixels, name: str) -> Any:
    try:
        return content()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # A damaged film makes its library raise anything.
        raise ImageError(f"{name}: a frame is damaged ({type(error).__name__}: {error})") from None


def _named(text: str, fps: float | None) -> Iterator[Item]:
    if text == STDIN:
        yield from _on_stdin(_stdin(), fps)
        return
    for name in _expanded(text):
        if is_film(name):
            yield from _frames(name, name, fps)
        elif Path(name).is_dir():
            yield Item(name, _empty(name))
        else:
            yield Item(name, Path(name))


def _empty(folder: str) -> ImageError:
    """Why a folder gives no image."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return ImageError(f"{folder}: cannot be read ({error.strerror})")
    return ImageError(f"{folder}: no images in it (files that end in {', '.join(SUFFIXES)})")


def _expanded(text: str) -> Iterator[str]:
    """The files that a name means: those below a folder, those that fit a pattern, or itself."""
    is_there = text.startswith(STREAMS) or os.path.lexists(text)
    matches = _matches(text) if not is_there and glob.has_magic(text) else [text]
    for match in matches or [text]:
        below = _below(match) if Path(match).is_dir() else iter(())
        first = next(below, match)
        yield first
        yield from below


def _matches(pattern: str) -> list[str]:
    """What fits a pattern, sorted; hidden ones are left out."""
    parts = Path(pattern).parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root, rest = Path(*parts[:fixed]), Path(*parts[fixed:])
    found = (path.relative_to(root) for path in root.glob(str(rest)))
    return sorted(str(root / path) for path in found if not any(part.startswith(".") for part in path.parts))


def _below(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """The image files below a folder, sorted; a folder that cannot be read stands for itself.

    Hidden folders and those of photo managers are left out; links are followed, but not in a circle.
    """
    try:
        state = Path(folder).stat()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    own = (state.st_dev, state.st_ino)
    if own in above:
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _below(entry.path, (*above, own))
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path


def _frames(name: str, source: str | BinaryIO, fps: float | None) -> Iterator[Item]:
    try:
        for frame in read_frames(source, name, fps):
            yield Item(name, frame.pixels, frame.number, frame.seconds)
    except ImageError as error:
        yield Item(name, error)


def _stdin() -> io.BufferedReader:
    stream: Any = sys.stdin.buffer
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)


def _on_stdin(stream: io.BufferedReader, fps: float | None) -> Iterator[Item]:
    """An image, a film, or a list of files, told apart by how they begin."""
    head = stream.peek(64)
    if not head:
        yield Item("standard input", ImageError("standard input: is empty"))
    elif _is_text(head):
        for name in _lines(stream):
            yield from _named(name, fps)
    elif _is_image(head):
        content = stream.read(MAX_BYTES + 1)
        yield Item("standard input", content if len(content) <= MAX_BYTES else _too_long("standard input"))
    else:
        yield from _frames("standard input", stream, fps)


def _names_on_stdin(stream: io.BufferedReader) -> list[str]:
    if not _is_text(stream.peek(64)):
        raise ValueError(
            "standard input: expected names of files, one a line, where predictions go into a file"
        )
    return [name for line in _lines(stream) for name in _expanded(line)]


def _lines(stream: BinaryIO) -> Iterator[str]:
    for line in stream:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if name and name != STDIN:
            yield name


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head) and not _is_image(head)


def _is_image(head: bytes) -> bool:
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
    return head.startswith(starts) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _read_file(path: Path) -> bytes:
    try:
        # A pipe or a device would be waited for without end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ImageError(f"{path}: is no regular file, so no image")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise _too_long(str(path))
            return file.read()
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except PermissionError:
        raise ImageError(f"{path}: may not be read (no permission)") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({error})") from None


def _too_long(name: str) -> ImageError:
    return ImageError(f"{name}: is larger than {MAX_BYTES:,} bytes; no image that is read is")


def _in_memory(images: Any, name: str) -> Iterator[Item]:
    """One image, or each of a batch."""
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        for number, image in enumerate(images):
            yield Item(f"{name}, {number} of the batch", image)
    elif isinstance(images, Image.Image | np.ndarray | Tensor):
        yield Item(name, images)
    else:
        raise TypeError(
            f"{name} is a {type(images).__name__}; expected a path, a PIL image, an array or a tensor"
        )


def _from_image(image: Image.Image, name: str) -> Tensor:
    try:
        pixels = np.array(plain_image(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name}: damaged or cut off ({error})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _from_array(array: Any, name: str) -> Tensor:
    """An array (H, W) or (H, W, C), as image libraries have it."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"{name}: is an array of shape {array.shape}; expected (H, W), (H, W, 3) or (N, H, W, 3)"
        )
    return _as_rgb(_as_bytes(array, name))


def _from_tensor(tensor: Tensor, name: str) -> Tensor:
    """A tensor (C, H, W), as torch has it."""
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4) or 0 in tensor.shape:
        raise ImageError(
            f"{name}: is a tensor of shape {tuple(tensor.shape)}; expected (3, H, W) or (N, 3, H, W)"
        )
    return _as_rgb(_as_bytes(tensor.detach().cpu().numpy().transpose(1, 2, 0), name))


def _as_bytes(array: Any, name: str) -> Any:
    """Values as 0 to 255: bytes as they are, 16 bits scaled, fractions of 1 scaled."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.round(array / 257.0).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(
            f"{name}: has values of type {array.dtype}; expected uint8, uint16, or floats in [0, 1]"
        )
    low, high = float(array.min()), float(array.max())  # NaN is in neither range.
    if not (low >= 0.0 and high <= 1.0):
        raise ImageError(
            f"{name}: has values from {low:g} to {high:g}; expected floats in [0, 1], or uint8 from 0 to 255"
        )
    return np.round(array * 255.0).astype(np.uint8)


def _as_rgb(pixels: Any) -> Tensor:
    """(H, W, 1, 3 or 4) of uint8 as (3, H, W)."""
    if pixels.shape[2] == 4:
        pixels = np.array(plain_image(Image.fromarray(np.ascontiguousarray(pixels))).convert("RGB"))
    elif pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    # A copy where it may not be written to, as torch warns of such arrays: of `np.asarray(image)`, say.
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
