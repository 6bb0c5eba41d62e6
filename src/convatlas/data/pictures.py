"""Reading picture files: what a person may hand over, made into one plain image."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Only the decoders that are needed: the obscure ones are where the security holes are.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_SIDE = 20_000
# Below the number at which Pillow itself begins to warn.
MAX_PIXELS = 89_000_000


class PictureError(ValueError):
    """A file that cannot be used as a picture; the message names it and says why."""


def read_picture(path: Path) -> Image.Image:
    """Reads a picture as it is meant to be seen, as "L" or "RGB" with 8 bits a channel.

    EXIF rotation is applied, 16-bit grey is scaled to 8 bits, palettes and CMYK become RGB, and a
    transparent picture is laid on white, or on black where what is drawn is light. Of an animation
    the first frame counts.

    Args:
        path: a BMP, GIF, JPEG, PNG, TIFF or WebP file, whatever its name ends in.

    Raises:
        PictureError: missing, no picture, damaged, empty, or larger than 20,000 px a side or 89 Mpx.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(path, *image.size)
            image.load()
            return _plain(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PictureError(f"{path}: is a folder, not a picture") from None
    except PermissionError:
        raise PictureError(f"{path}: may not be read (no permission)") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{path}: has more pixels than any picture this reads ({MAX_PIXELS:,})") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path}: {_what_it_is(path)}") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise PictureError(f"{path}: damaged or cut off ({error})") from None


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise PictureError(f"{path}: is {width}x{height} px; a picture has at least one px a side")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise PictureError(
            f"{path}: is {width}x{height} px; the largest that is read is {MAX_SIDE:,} px a side "
            f"and {MAX_PIXELS:,} px in all"
        )


def _what_it_is(path: Path) -> str:
    head = path.read_bytes()[:24] if path.is_file() else b""
    if not head:
        return "is an empty file"
    if head.startswith(b"\x89PNG\r\n\x1a\n") and 0 in (head[16:20].count(0) - 4, head[20:24].count(0) - 4):
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        return f"is {width}x{height} px; a picture has at least one px a side"
    return f"is no picture in a format that is read ({', '.join(FORMATS)})"


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    if image.mode in ("L", "RGB"):
        return image.copy()
    if image.mode == "1":
        return image.convert("L")
    if "A" in image.mode or "transparency" in image.info:
        return _on_background(image.convert("RGBA"))
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    # `convert("L")` would clip at 255; 16 bits are scaled, and other depths by their own range.
    values = np.asarray(image).astype(np.float64)
    top = 65535.0 if image.mode.startswith("I") and values.max() <= 65535 else max(float(values.max()), 1e-12)
    return Image.fromarray(np.round(values.clip(0) / top * 255.0).astype(np.uint8))


def _on_background(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    alpha = pixels[..., 3:] / 255.0
    drawn = float((pixels[..., :3] * alpha).sum() / max(3.0 * float(alpha.sum()), 1e-12))
    background = 255.0 if drawn < 128.0 or float(alpha.min()) == 1.0 else 0.0
    blend = pixels[..., :3] * alpha + background * (1.0 - alpha)
    return Image.fromarray(np.round(blend).astype(np.uint8))
