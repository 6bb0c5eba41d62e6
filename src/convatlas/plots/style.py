"""One look for every chart: the font and the colours of the figures of networks, in three themes.

Legends stand below their axes, never on the data; axes that count epochs have whole numbers.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from convatlas.drawing.palette import PALETTES, THEMES, Palette
from convatlas.drawing.raster import FOLDER
from convatlas.errors import unknown
from convatlas.escape import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

DPI = 120
FONTS = ("Arimo", "DejaVu Sans")
"""The font that comes with convatlas, and matplotlib's for what it lacks: the same on every machine."""
_ORDER = ("resnet", "efficientnet", "densenet", "nasnet", "inception", "vgg", "mobilenet", "alexnet")
"""Families whose colours series take that belong to no family, the most unlike first."""
_COUNTED = ("epoch", "layer", "block", "seed", "group")
"""Axes whose labels have such a word show whole numbers only."""


def palette(theme: str = "light") -> Palette:
    """The colours of a theme.

    Args:
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    if theme not in PALETTES:
        raise unknown("theme", theme, THEMES)
    return PALETTES[theme]


def series(theme: str = "light") -> list[str]:
    """Colours of series that stand for no family, as `#RRGGBB`: told apart by colour-blind eyes.

    Args:
        theme: light, dark or print.
    """
    networks = palette(theme).networks
    return [networks[name] for name in _ORDER]


@contextmanager
def styled(theme: str = "light") -> Generator[Palette]:
    """Within it matplotlib draws in the look of a theme; gives the theme's colours.

    Args:
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    from matplotlib import rc_context

    colours = palette(theme)
    _add_font()
    settings: Any = _settings(colours, series(theme))
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # A box stands for it.
        yield colours


def render(
    draw: Callable[[Figure], None], *, width: float = 9.0, height: float = 4.0, theme: str = "light"
) -> bytes:
    """Draws a chart as PNG, without pyplot and its state.

    Args:
        draw: draws on the figure; colours C0, C1 and so on are those of `series`, and k is the ink.
        width: in inches of 120 px.
        height: in inches of 120 px.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    from matplotlib.figure import Figure as NewFigure

    with styled(theme) as colours:
        figure = NewFigure(figsize=(width, height), layout="constrained", dpi=DPI)
        draw(figure)
        for axes in figure.axes:
            soften(axes)
            _use_ink(axes, colours)
        place_legends(figure)
        return png(figure)


def png(figure: Figure) -> bytes:
    """The PNG file of a figure, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def soften(axes: Axes) -> None:
    """Light grid behind the data, a frame at the left and below, whole numbers where things are counted."""
    for axis in (axes.xaxis, axes.yaxis):
        if not axes.images and not _is_named(axis):
            axis.grid(True)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        label = axis.get_label_text().lower()
        if axis.get_scale() == "linear" and label.startswith(_COUNTED) and not _is_named(axis):
            whole_numbers(axis)


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`.
    """
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def place_legends(figure: Figure) -> None:
    """Moves each legend below its axes, in as many columns as fit.

    Args:
        figure: has a layout engine, which makes room.
    """
    held = [(axes, axes.get_legend()) for axes in figure.axes]
    if not any(legend for _, legend in held):
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer: Any = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    for axes, legend in held:
        if legend is not None:
            _place_below(axes, legend, renderer)


def _place_below(axes: Axes, legend: Legend, renderer: Any) -> None:
    from matplotlib.transforms import ScaledTranslation

    figure: Any = axes.figure
    handles: Any = legend.legend_handles
    labels = [text.get_text() for text in legend.get_texts()]
    box = axes.xaxis.get_tightbbox(renderer)
    below = 0.0 if box is None else max(axes.bbox.y0 - box.y0, 0.0)
    # A handle and the gaps take some 50 px beside the longest text.
    wide = max(text.get_window_extent().width for text in legend.get_texts()) + 50.0
    axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=axes.transAxes
        + ScaledTranslation(0.0, -(below + 5.0) / figure.dpi, figure.dpi_scale_trans),
        ncols=min(max(int(axes.bbox.width / wide), 1), len(labels)),
        borderaxespad=0.0,
        borderpad=0.0,
    )


def _is_named(axis: Any) -> bool:
    """Whether ticks have words of their own."""
    from matplotlib.category import StrCategoryLocator
    from matplotlib.ticker import FixedLocator

    return isinstance(axis.get_major_locator(), FixedLocator | StrCategoryLocator)


def _use_ink(axes: Axes, colours: Palette) -> None:
    """Black and greys that a drawing named become the theme's."""
    from matplotlib.colors import to_hex

    greys = {"#000000": colours.ink, "#cccccc": colours.hair, "#808080": colours.muted}
    legend = axes.get_legend()
    lines: Sequence[Any] = [*axes.lines, *(legend.get_lines() if legend else ())]
    for each in lines:
        grey = greys.get(to_hex(each.get_color()))
        if grey is not None:
            each.set_color(grey)


@functools.cache
def _add_font() -> None:
    from matplotlib import font_manager

    for path in sorted(FOLDER.glob("*.ttf")):
        font_manager.fontManager.addfont(str(path))


def _settings(colours: Palette, cycle: Sequence[str]) -> dict[str, Any]:
    from cycler import cycler

    return {
        "font.family": list(FONTS),
        "font.size": 9.5,
        "text.color": colours.ink,
        "figure.facecolor": colours.background,
        "savefig.facecolor": colours.background,
        "axes.facecolor": colours.background,
        "axes.edgecolor": colours.hair,
        "axes.labelcolor": colours.muted,
        "axes.titlecolor": colours.ink,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=list(cycle)),
        "grid.color": colours.hair,
        "grid.linewidth": 0.7,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.0,
        "legend.frameon": False,
        "legend.handlelength": 1.4,
        "legend.columnspacing": 1.4,
        "legend.labelcolor": colours.ink,
        "xtick.color": colours.muted,
        "ytick.color": colours.muted,
        "xtick.major.size": 0.0,
        "ytick.major.size": 0.0,
        "xtick.minor.size": 0.0,
        "ytick.minor.size": 0.0,
    }


def literal(text: str) -> str:
    """A text that is not taken for a formula."""
    return plain(text, "figure")
