"""PNG and PDF of a figure, in the font that comes with convatlas, so that they are alike on every machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .palette import FONTS

# Arimo, whose widths are those of Helvetica and Arial; SIL Open Font License, see OFL.txt beside it.
FOLDER = Path(__file__).parent / "fonts"
_CONVERT = (
    "import sys, cairosvg; sys.stdout.buffer.write(cairosvg.svg2pdf(bytestring=sys.stdin.buffer.read()))"
)
_TIME_LIMIT_S = 300


def to_png(svg: str, scale: float) -> bytes:
    """A PNG with `scale` px for each px of the figure."""
    import resvg_py

    render: Any = resvg_py.svg_to_bytes
    files = [str(path) for path in sorted(FOLDER.glob("*.ttf"))]
    return bytes(render(svg_string=svg, zoom=scale, font_files=files, skip_system_fonts=True))


def to_pdf(svg: str) -> bytes:
    """A PDF of one page, its text as text.

    Raises:
        OSError: if the system's cairo library is missing, or cannot write the figure.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Cairo finds fonts through fontconfig, which reads its configuration once in a process.
        config = Path(folder) / "fonts.conf"
        config.write_text(
            f"<fontconfig><include ignore_missing='yes'>/etc/fonts/fonts.conf</include>"
            f"<dir>{escape(str(FOLDER))}</dir><cachedir>{escape(folder)}</cachedir></fontconfig>",
            encoding="utf-8",
        )
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT],
            input=svg.replace(FONTS, "Arimo").encode(),
            env=os.environ | {"FONTCONFIG_FILE": str(config), "SOURCE_DATE_EPOCH": "0"},
            capture_output=True,
            timeout=_TIME_LIMIT_S,
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise OSError(f"PDF is written by cairosvg, which needs the system's cairo library: {lines[-1]}")
    # Cairo notes when the file was made; the same figure gives the same bytes.
    return re.sub(rb"(/CreationDate \(D:)\d{14}", rb"\g<1>19700101000000", done.stdout)
