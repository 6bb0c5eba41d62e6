"""A finished figure: its SVG, and files of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convatlas.errors import nearest
from convatlas.files import write_atomic

from .canvas import MARGIN, Canvas, Label

SUFFIXES = (".svg", ".png", ".pdf")


class DrawingError(ValueError):
    """A figure that cannot be drawn as asked; the message says what is allowed."""


@dataclass(frozen=True)
class Figure:
    """A figure. It shows itself in notebooks.

    Attributes:
        svg: the file's text, which needs nothing else.
        width: in px.
        height: in px.
        title: what it shows.
        description: the same in words, for who cannot see it.
        labels: every text with the room that is kept for it, in px.
    """

    svg: str
    width: int
    height: int
    title: str
    description: str
    labels: tuple[Label, ...]

    def __repr__(self) -> str:
        return f"Figure({self.title!r}, {self.width}x{self.height} px)"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path, *, scale: float = 2.0) -> Path:
        """Writes the figure; the suffix says the format.

        Args:
            path: ends in .svg, .png or .pdf; what stands there is replaced.
            scale: PNG: px of the file for each px of the figure.

        Returns:
            The path.

        Raises:
            ValueError: if the suffix is another, or `scale` is not positive.
            OSError: if the file cannot be written.
        """
        path = Path(path)
        suffix = suffix_of(path)
        if not 0 < scale <= 20:
            raise DrawingError(f"`scale`={scale}; expected more than 0 and at most 20")
        write_atomic(path, self._encoded(suffix, scale))
        return path

    def _encoded(self, suffix: str, scale: float) -> bytes | str:
        if suffix == ".svg":
            return self.svg
        from .raster import to_pdf, to_png

        return to_png(self.svg, scale) if suffix == ".png" else to_pdf(self.svg)


def suffix_of(path: Path) -> str:
    """The suffix of a figure's file, in lower case.

    Raises:
        DrawingError: figures are not written as such files.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DrawingError(
            f"file {path.name!r}: figures are written as {', '.join(SUFFIXES)}; "
            f"nearest: {nearest(suffix, SUFFIXES).split(',')[0]}"
        )
    return suffix


def finish(canvas: Canvas, title: str, description: str, theme: str) -> Figure:
    """The figure of what was drawn, with a margin right of and below it."""
    canvas.cover(0, 0, canvas.right + MARGIN, canvas.bottom + MARGIN - 8)
    if canvas.left < 0:
        canvas.left -= MARGIN
    svg, width, height = canvas.svg(title, description, theme)
    return Figure(svg, width, height, title, description, tuple(canvas.labels))
