"""A canvas that grows with what is drawn on it and knows where each label lies."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from .metrics import reserved, width
from .palette import FONTS, PALETTES, rules

Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]
MARGIN = 32
_HEAD_LONG, _HEAD_WIDE = 7.0, 6.4


@dataclass(frozen=True)
class Label:
    """A placed line of text and the room that is kept for it, in px of the figure.

    Attributes:
        text: what it says.
        x0: left edge.
        y0: upper edge.
        x1: right edge.
        y1: lower edge.
    """

    text: str
    x0: float
    y0: float
    x1: float
    y1: float


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def size_of(style: str) -> tuple[int, bool]:
    """Font size and weight of a text class, such as `t12b`."""
    return int(style.strip("tb")), style.endswith("b")


class Canvas:
    """Elements in reading order, with the extent of all of them.

    Attributes:
        labels: the texts that were placed.
        families: families of operations that were drawn, for the legend.
        marks: other signs that were drawn (`skip`, `skipd`, `stride`, `filt`), for the legend.
    """

    def __init__(self) -> None:
        self.labels: list[Label] = []
        self.families: dict[str, None] = {}
        self.marks: dict[str, None] = {}
        self._parts: list[str] = []
        self._classes: set[str] = set()
        self.right = self.bottom = 0.0
        self.left = self.top = 0.0

    def cover(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Makes the canvas reach over a box."""
        self.left, self.top = min(self.left, x0), min(self.top, y0)
        self.right, self.bottom = max(self.right, x1), max(self.bottom, y1)

    def _class(self, names: str) -> str:
        self._classes.update(names.split())
        return f' class="{names}"'

    def rect(self, cls: str, x: float, y: float, w: float, h: float, radius: float = 4) -> None:
        """A rectangle with rounded corners."""
        self.cover(x, y, x + w, y + h)
        at = f'x="{number(x)}" y="{number(y)}" width="{number(w)}" height="{number(h)}"'
        rounded = f' rx="{number(radius)}"' if radius else ""
        self._parts.append(f"<rect{self._class(cls)} {at}{rounded}/>")

    def path(self, cls: str, d: str) -> None:
        """A path; the caller covers what it reaches beyond other elements."""
        self._parts.append(f'<path{self._class(cls)} d="{d}"/>')

    def line(self, cls: str, *points: Point) -> None:
        """Straight lines from point to point."""
        for x, y in points:
            self.cover(x, y, x, y)
        self.path(cls, "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points))

    def circle(self, cls: str, x: float, y: float, radius: float) -> None:
        """A circle around a point."""
        self.cover(x - radius, y - radius, x + radius, y + radius)
        at = f'cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"'
        self._parts.append(f"<circle{self._class(cls)} {at}/>")

    def head(self, cls: str, x: float, y: float, dx: float, dy: float) -> None:
        """An arrowhead whose tip is (x, y), pointing along the unit vector (dx, dy)."""
        bx, by = x - _HEAD_LONG * dx, y - _HEAD_LONG * dy
        ox, oy = -dy * _HEAD_WIDE / 2, dx * _HEAD_WIDE / 2
        points = ((x, y), (bx + ox, by + oy), (bx - ox, by - oy))
        self.path(cls, "M" + "L".join(f"{number(px)} {number(py)}" for px, py in points) + "Z")

    def text(self, style: str, x: float, y: float, text: str, anchor: Anchor = "middle") -> None:
        """A line of text whose middle height is y.

        Args:
            style: classes, the first of which is the size, such as `t11 m`.
            x: where its anchor lies.
            y: middle of the line.
            text: not escaped.
            anchor: which of its ends, or its middle, lies at x.
        """
        size, bold = size_of(style.split()[0])
        wide = reserved(text, size, bold)
        x0 = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        self.labels.append(Label(text, x0, y - 0.5 * size, x0 + wide, y + 0.5 * size))
        self.cover(x0, y - 0.5 * size, x0 + wide, y + 0.5 * size)
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        at = f'x="{number(x)}" y="{number(y + 0.36 * size)}"{place}'
        self._parts.append(f"<text{self._class(style)} {at}>{escape(text)}</text>")

    def halo(self, style: str, x: float, y: float, text: str, anchor: Anchor = "middle") -> None:
        """A line of text with the background around its letters, for labels that lie on lines."""
        size, _ = size_of(style.split()[0])
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        at = f'x="{number(x)}" y="{number(y + 0.36 * size)}"{place} aria-hidden="true"'
        # Twice, since not every renderer knows paint-order.
        self._parts.append(f"<text{self._class(f'{style.split()[0]} halo')} {at}>{escape(text)}</text>")
        self.text(style, x, y, text, anchor)

    def image(self, x: float, y: float, w: float, h: float, png: bytes) -> None:
        """An image, which the file holds itself; px are drawn as squares where it is enlarged.

        Args:
            x: left edge.
            y: upper edge.
            w: width in px of the figure.
            h: height in px of the figure.
            png: the file.
        """
        self.cover(x, y, x + w, y + h)
        at = f'x="{number(x)}" y="{number(y)}" width="{number(w)}" height="{number(h)}"'
        data = base64.b64encode(png).decode("ascii")
        self._parts.append(
            f'<image {at} preserveAspectRatio="none" style="image-rendering:pixelated" '
            f'href="data:image/png;base64,{data}"/>'
        )

    @contextmanager
    def group(self, path: str, title: str = "") -> Generator[None]:
        """Elements that stand for the module at `path`; pages link to it by `data-layer`."""
        self._parts.append(f"<g data-layer={quoteattr(path)}>")
        shown = title or path
        if shown:
            self._parts.append(f"<title>{escape(shown)}</title>")
        yield
        self._parts.append("</g>")

    def svg(self, title: str, description: str, theme: str) -> tuple[str, int, int]:
        """The file, its width and its height; what lies left of or above 0 moves everything."""
        right, bottom = round(self.right - self.left + 0.499), round(self.bottom - self.top + 0.499)
        shift = (-self.left, -self.top)
        body = "\n".join(self._parts)
        if shift != (0.0, 0.0):
            body = f'<g transform="translate({number(shift[0])} {number(shift[1])})">\n{body}\n</g>'
            self.labels = [_moved(label, *shift) for label in self.labels]
            self.left = self.top = 0.0
        name = f"f{zlib.crc32(f'{theme}{title}{body}'.encode()):08x}"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom}" '
            f'viewBox="0 0 {right} {bottom}" role="img" class="{name}" aria-labelledby="{name}t {name}d">\n'
            f'<title id="{name}t">{escape(title)}</title>\n<desc id="{name}d">{escape(description)}</desc>\n'
            f"<style>{self._css(name, theme)}</style>\n"
            f'<rect class="bg" width="{right}" height="{bottom}"/>\n'
        )
        return f"{head}{body}\n</svg>\n", right, bottom

    def _css(self, name: str, theme: str) -> str:
        palette = PALETTES[theme]
        # Each rule holds in this figure alone: a page may show several, in several themes.
        text = f".{name} text{{font-family:{FONTS};fill:{palette.ink};font-variant-numeric:tabular-nums}}"
        css = rules(palette)
        used = [key for key in css if key in self._classes or key == "bg"]
        return text + "".join(f".{name} .{key}{{{css[key]}}}" for key in used)


def _moved(label: Label, dx: float, dy: float) -> Label:
    return Label(label.text, label.x0 + dx, label.y0 + dy, label.x1 + dx, label.y1 + dy)


def fitted(texts: list[tuple[str, str]], padding: float = 8) -> float:
    """The width of a box that holds each (style, text) with `padding` on either side."""
    widths = [reserved(text, *size_of(style.split()[0])) for style, text in texts if text]
    return max(widths, default=0.0) + 2 * padding


def shown_width(style: str, text: str) -> float:
    """The width at which a text is drawn, for what must touch it."""
    return width(text, *size_of(style.split()[0]))
