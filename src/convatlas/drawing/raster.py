"""PNG and PDF of a figure; a PNG is alike on every machine, since its font comes with convatlas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Arimo, whose widths are those of Helvetica and Arial; SIL Open Font License, see OFL.txt beside it.
FONTS = Path(__file__).parent / "fonts"


def to_png(svg: str, scale: float) -> bytes:
    """A PNG with `scale` px for each px of the figure."""
    import resvg_py

    render: Any = resvg_py.svg_to_bytes
    files = [str(path) for path in sorted(FONTS.glob("*.ttf"))]
    return bytes(render(svg_string=svg, zoom=scale, font_files=files, skip_system_fonts=True))


def to_pdf(svg: str) -> bytes:
    """A PDF of one page.

    Raises:
        OSError: if the system's cairo library is missing.
    """
    try:
        import cairosvg
    except OSError as error:
        raise OSError(f"PDF needs the cairo library of the system, which is missing: {error}") from error
    convert: Any = cairosvg.svg2pdf
    return convert(bytestring=svg.encode())
