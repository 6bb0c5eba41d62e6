"""Reading image files: what a person may hand over, made into one plain image."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import io
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

# Only the decoders that are needed: the obscure ones are where the security holes are.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_SIDE = 20_000
# An image of so many takes half a gigabyte while it is decoded.
MAX_PIXELS = 50_000_000
# What all threads together may hold of images that are being decoded: this share of the memory, at most.
MEMORY_SHARE, MEMORY_BYTES = 0.25, 2 * 1024**3
# Bytes that decoding takes for each px: Pillow's image (4), the same without transparency or turned (3), as
# an array (3).
BYTES_PER_PX = 10
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112  # EXIF's number for it
RGB = 3  # torchvision's ImageReadMode.RGB

Answer = TypeVar("Answer")
BoolArray = NDArray[np.bool_]


class MemoryBudget:
    """Bytes that threads share: who needs more than is left waits until others are done.

    One that needs more than all of it goes alone.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Generator[None]:
        """Holds `amount` bytes while the block runs."""
        amount = min(amount, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._used + amount <= self.total)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


@functools.cache
def decoding_budget() -> MemoryBudget:
    """What the threads of this process share for decoding: a quarter of the memory, at most 2 GiB."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # No such question on this system.
        memory = 4 * MEMORY_BYTES
    return MemoryBudget(min(MEMORY_BYTES, int(MEMORY_SHARE * memory)))


# A forked process has none of the threads that hold a part.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoding_budget.cache_clear)


class ImageError(ValueError):
    """A file that cannot be used as an image; the message names it and says why."""


def read_image(path: Path) -> Image.Image:
    """Reads an image as it is meant to be seen, as "L" or "RGB" with 8 bits a channel.

    EXIF rotation is applied, 16-bit grey is scaled to 8 bits, palettes and CMYK become RGB, and a
    transparent image is laid on white, or on black where what is drawn is light. Of an animation
    the first frame counts.

    Args:
        path: a BMP, GIF, JPEG, PNG, TIFF or WebP file, whatever its name ends in.

    Raises:
        ImageError: missing, no image, damaged, empty, or larger than 20,000 px a side or 50 Mpx.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ImageError(f"{path}: is no regular file, so no image")
        with path.open("rb") as file:
            return _read(file, str(path))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except PermissionError:
        raise ImageError(f"{path}: may not be read (no permission)") from None


def decode_image(data: bytes, name: str, least_side: int | None = None) -> Tensor:
    """Decodes the content of an image file: (3, H, W) of uint8, RGB, in memory as (H, W, 3).

    To the bit what `read_image` gives, in RGB. The usual JPEG is decoded by torchvision, which takes
    a little more than half of Pillow's time; what is odd (CMYK, rotated by EXIF, arithmetic coding) and
    every other format by Pillow, since torchvision's decoder of PNG crashes on some damaged files.

    Args:
        data: the content.
        name: of the file, for messages.
        least_side: a JPEG may come at a half, a quarter or an eighth of its size, which takes a fraction of
            the time, as long as its shorter side keeps so many px; None for its own size.

    Raises:
        ImageError: as `read_image` raises it.
    """
    frame = _jpeg_frame(data)
    if frame is not None:
        _check_size(name, frame.width, frame.height)
    shrinks = (
        frame is not None and least_side is not None and min(frame.width, frame.height) >= 2 * least_side
    )
    decode = _torchvision_jpeg() if frame is not None and frame.is_usual and not shrinks else None
    if frame is not None and decode is not None and _orientation(data, frame, name) == 1:
        try:
            with decoding_budget().hold(BYTES_PER_PX * frame.width * frame.height):
                return decode(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        except RuntimeError:
            pass  # Pillow says what is wrong, or copes.
    pixels = np.array(_read(io.BytesIO(data), name, least_side if shrinks else None).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width in px as the header states them, without decoding.

    Args:
        data: the content of an image file; of a JPEG or PNG, the beginning is enough that holds the header.
        name: of the file, for messages.

    Raises:
        ImageError: it is no image, or too large.
    """
    frame = _jpeg_frame(data)
    if frame is not None:
        width, height = frame.width, frame.height
    else:
        width, height = _opened(io.BytesIO(data), name, lambda image: image.size)
    _check_size(name, width, height)
    return height, width


def _read(file: IO[bytes], name: str, least_side: int | None = None) -> Image.Image:
    def load(image: Image.Image) -> Image.Image:
        _check_size(name, *image.size)
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        with decoding_budget().hold(BYTES_PER_PX * image.width * image.height):
            image.load()
            return plain_image(_turned(image))

    return _opened(file, name, load)


def _turned(image: Image.Image) -> Image.Image:
    """The image as EXIF says it is to be turned; what EXIF may not say is not heeded."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Whatever is wrong with a note beside the image, the image is good.
        return image
    return ImageOps.exif_transpose(image) if _is_orientation(orientation) else image


def _is_orientation(value: object) -> bool:
    return isinstance(value, int) and 2 <= value <= 8


def _opened(file: IO[bytes], name: str, use: Callable[[Image.Image], Answer]) -> Answer:
    """Opens an image with Pillow and uses it; whatever goes wrong becomes one line."""
    head = file.read(24)
    file.seek(0)
    if (
        head.startswith(PNG) and len(head) == 24
    ):  # Before Pillow, which warns of a large one on standard error.
        _check_size(name, int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    try:
        with Image.open(file, formats=FORMATS) as image:
            return use(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name}: has more pixels than any image this reads ({MAX_PIXELS:,})") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_what_it_is(head)}") from None
    except IsADirectoryError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise ImageError(f"{name}: damaged or cut off ({error})") from None


def _check_size(name: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: is {width}x{height} px; an image has at least one px a side")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {width}x{height} px; the largest that is read is {MAX_SIDE:,} px a side "
            f"and {MAX_PIXELS:,} px in all"
        )


def _what_it_is(head: bytes) -> str:
    return f"is no image in a format that is read ({', '.join(FORMATS)})" if head else "is an empty file"


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What a JPEG says of its pixels, and where the header that says it ends."""

    width: int
    height: int
    is_usual: bool
    end: int


def _jpeg_frame(data: bytes) -> _Frame | None:
    """The frame header of a JPEG (ITU-T T.81, B.2.2); None where there is none to be found."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 10 > len(data):
                return None
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            # Baseline, extended or progressive, Huffman-coded, 8 bits, grey or three channels.
            usual = marker in (0xC0, 0xC1, 0xC2) and data[at + 4] == 8 and data[at + 9] in (1, 3)
            return _Frame(width, height, usual, at)
        if marker in (0xD9, 0xDA) or length < 2:
            return None
        at += 2 + length
    return None


def _orientation(data: bytes, frame: _Frame, name: str) -> int:
    """How a JPEG is to be turned, 1 to 8; 1 is as it is. Pillow reads it, as `read_image` has it read."""
    header = data[: frame.end]
    if b"Exif\0" not in header and b"Orientation" not in header:
        return 1

    def look(image: Image.Image) -> int:
        try:
            orientation = image.getexif().get(ORIENTATION, 1)
        except Exception:  # As in `_turned`.
            return 1
        return orientation if _is_orientation(orientation) else 1

    return _opened(io.BytesIO(data), name, look)


@functools.cache
def _torchvision_jpeg() -> Callable[[Tensor], Tensor] | None:
    """Torchvision's decoder of JPEG to RGB; None where this build has none.

    Its library is loaded without importing torchvision, which would take seconds. From 0.29 on
    torchvision's decoders are to be removed some day; Pillow then does it all, in more time.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return None
    if not hasattr(torch.ops.image, "decode_jpeg"):
        for library in sorted(Path(package.origin).parent.glob("image*.*")):
            with contextlib.suppress(OSError):
                torch.ops.load_library(library)
    if not hasattr(torch.ops.image, "decode_jpeg"):
        return None
    return lambda data: torch.ops.image.decode_jpeg(data, RGB)


def plain_image(image: Image.Image) -> Image.Image:
    """Brings an image of any mode to "L" or "RGB" with 8 bits a channel, as `read_image` does."""
    key = image.info.get("transparency")
    if image.mode.startswith(("I", "F")):
        grey = _from_deep_grey(image)
        return grey if key is None else _without_key(grey, np.asarray(image) == key)
    if image.mode in ("1", "L"):
        grey = image.convert("L")
        if key is None:
            return grey if grey is not image else image.copy()
        # Of one bit, white is 255 here and 1 in the file.
        return _without_key(grey, np.asarray(grey) == (255 * bool(key) if image.mode == "1" else key))
    if image.mode == "RGB" and key is None:
        return image.copy()
    if "A" in image.mode or "transparency" in image.info:
        return _on_background(image.convert("RGBA"))
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    # `convert("L")` would clip at 255; 16 bits are scaled, and other depths by their own range.
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are NaN or infinite")
    top = 65535.0 if image.mode.startswith("I") and values.max() <= 65535 else max(float(values.max()), 1e-12)
    return Image.fromarray(np.round(values.clip(0) / top * 255.0).astype(np.uint8))


def _without_key(grey: Image.Image, is_key: BoolArray) -> Image.Image:
    """Grey whose px of the transparent shade lie on the background."""
    alpha = Image.fromarray(np.where(is_key, 0, 255).astype(np.uint8))
    return _on_background(Image.merge("RGBA", (grey, grey, grey, alpha))).convert("L")


def _on_background(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    alpha = pixels[..., 3:] / 255.0
    drawn = float((pixels[..., :3] * alpha).sum() / max(3.0 * float(alpha.sum()), 1e-12))
    background = 255.0 if drawn < 128.0 or float(alpha.min()) == 1.0 else 0.0
    blend = pixels[..., :3] * alpha + background * (1.0 - alpha)
    return Image.fromarray(np.round(blend).astype(np.uint8))
