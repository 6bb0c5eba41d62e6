"""Images of a training: curves, two runs side by side, the confusion matrix, the hardest images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convatlas.escape import plain
from convatlas.metrics.error_analysis import most_confused
from convatlas.metrics.report_sections import MOST_CLASSES
from convatlas.plots.style import DPI, literal, palette, png, series, styled, whole_numbers
from convatlas.runs.run import Line, epoch_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image


class Tile(NamedTuple):
    """One image to show.

    Attributes:
        pixels: (C, H, W) of uint8, C being 1 or 3.
        title: written above it.
        note: written below it.
    """

    pixels: NDArray[np.uint8]
    title: str
    note: str


def draw_curves(title: str, lines: Sequence[Line], *, theme: str = "light") -> bytes:
    """Draws loss, test error and learning rate of one run as a PNG.

    Args:
        title: of the image.
        lines: of `metrics.jsonl`.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    with styled(theme) as colours:
        figure, (losses, errors, rates) = _panels(3, (1.25, 1.25, 1.0), top=0.82)
        figure.suptitle(literal(title), x=0.012, y=0.965, ha="left", fontsize=13, fontweight="bold")
        measured, between = epoch_lines(list(lines)), _between(lines)
        x, label = _places(lines, measured)
        training, test = _first_two(theme)
        if between:
            losses.plot(_at(between, x), _values(between, "loss"), color=training, alpha=0.35, linewidth=1.0)
        if measured:
            mark = "o" if len(measured) == 1 else None
            at = _at(measured, x)
            losses.plot(
                at, _values(measured, "loss"), color=training, marker=mark, label="training (augmented)"
            )
            losses.plot(at, _values(measured, "test_loss"), color=test, marker=mark, label="test")
            _draw_errors(errors, at, measured, mark, (test, colours.muted))
        rates.plot(_at(lines, x), _values(lines, "lr"), color=colours.muted)
        losses.set(xlabel=label, ylabel="loss")
        errors.set(xlabel=label, ylabel="test error (%)")
        rates.set(xlabel=label, ylabel="learning rate", ylim=(0.0, None))
        _log_scale(losses, 3.0)
        _log_scale(errors, 5.0)
        for axes in (losses, errors, rates):
            whole_numbers(axes.xaxis)
            _legend_above(axes)
        return png(figure)


def draw_comparison(names: Sequence[str], runs: Sequence[Sequence[Line]], *, theme: str = "light") -> bytes:
    """Draws loss and test error of some runs over each other as a PNG.

    Args:
        names: of the runs.
        runs: the lines of `metrics.jsonl` of each.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    with styled(theme) as colours:
        head = 0.35 + 0.22 * max(len(names), 2)
        figure, (losses, errors) = _panels(2, (1.0, 1.0), top=1.0 - head / (3.6 + head), height=3.6 + head)
        labels: set[str] = set()
        cycle = series(theme)
        for number, (name, lines) in enumerate(zip(names, runs, strict=True)):
            color = cycle[number % len(cycle)]
            measured = epoch_lines(list(lines))
            x, label = _places(lines, measured)
            labels.add(label)
            at, mark = _at(measured, x), "o" if len(measured) == 1 else None
            if not measured:
                losses.plot(_at(lines, x), _values(lines, "loss"), color=color, linestyle=":")
            losses.plot(at, _values(measured, "loss"), color=color, linestyle=":", marker=mark)
            losses.plot(at, _values(measured, "test_loss"), color=color, marker=mark)
            wrong = _errors(measured, "test_accuracy")
            end = f": {wrong[-1]:.2f} %" if wrong else ""
            errors.plot(at, wrong, color=color, marker=mark, label=f"{literal(name)}{end}")
        for style, label in ((":", "training"), ("-", "test")):
            losses.plot([], [], color=colours.muted, linestyle=style, label=label)
        losses.set(xlabel=" or ".join(sorted(labels)), ylabel="loss")
        errors.set(xlabel=" or ".join(sorted(labels)), ylabel="test error (%)")
        _log_scale(losses, 3.0)
        _log_scale(errors, 5.0)
        for axes in (losses, errors):
            whole_numbers(axes.xaxis)
            _legend_above(axes, columns=1)
        return png(figure)


def draw_confusion(
    confusion: NDArray[np.int64], class_names: Sequence[str], *, theme: str = "light"
) -> bytes:
    """Draws a confusion matrix as a PNG; of many classes, those that are confused most.

    Args:
        confusion: (K, K) counts; a row for each true class, a column for each prediction.
        class_names: K names.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    from matplotlib.figure import Figure

    chosen = most_confused(confusion, MOST_CLASSES)
    shown, names = confusion[np.ix_(chosen, chosen)], [_short(class_names[int(i)]) for i in chosen]
    shares = shown / np.maximum(confusion[chosen].sum(axis=1, keepdims=True), 1)
    count, longest = len(names), max(map(len, names))
    cell, margin = 0.4 if count > 12 else 0.5, 0.5 + 0.08 * longest
    side = max(count * cell, 2.4)
    upright = longest > (3 if count > 12 else 5)
    below = margin if upright else 0.6
    width, height = margin + side + 0.15, below + side + 0.7
    with styled(theme) as colours:
        figure = Figure(figsize=(width, height), dpi=DPI)
        axes = figure.add_axes((margin / width, below / height, side / width, side / height))
        axes.imshow(_confusion_colours(shares, theme), aspect="equal")
        for row, column in np.argwhere(shown > 0):
            strong = shares[row, column] > (0.85 if row == column else 0.35)
            axes.text(
                column, row, str(shown[row, column]), color=colours.background if strong else colours.ink,
                fontsize=9 if shown[row, column] < 1000 else 7, ha="center", va="center",
            )  # fmt: skip
        axes.set_xticks(range(count), names, rotation=90 if upright else 0, fontsize=9)
        axes.set_yticks(range(count), names, fontsize=9)
        axes.set(xlabel="prediction", ylabel="truth")
        left_out = len(class_names) - count
        title = (
            f"the {count} classes confused most, of {len(class_names)}"
            if left_out
            else "test images by class"
        )
        axes.set_title(title, pad=20)
        axes.text(
            0.0, 1.015, "blue: right, orange: wrong; share of the row", transform=axes.transAxes,
            color=colours.muted, fontsize=8.5, va="bottom",
        )  # fmt: skip
        return png(figure)


def _confusion_colours(shares: NDArray[np.float64], theme: str) -> NDArray[np.float64]:
    """Colours (K, K, 4) of the shares of rows: one hue on the diagonal, another beside it."""
    from matplotlib.colors import LinearSegmentedColormap

    background, (right, wrong) = palette(theme).background, _first_two(theme)
    # A share of 1 % must be seen among shares of 0 %, so the colour goes with the square root.
    colours = LinearSegmentedColormap.from_list("wrong", [background, wrong])(np.sqrt(shares))
    diagonal = np.eye(len(shares), dtype=bool)
    colours[diagonal] = LinearSegmentedColormap.from_list("right", [background, right])(
        0.07 + 0.93 * shares[diagonal] ** 3
    )
    return colours


def draw_tiles(tiles: Sequence[Tile], columns: int = 8, side: int = 128, *, theme: str = "light") -> bytes:
    """Draws images in a grid, each with a line above and a line below, as a PNG.

    Args:
        tiles: the images.
        columns: tiles in a row.
        side: px of the square that each image is fitted into.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    from PIL import Image, ImageDraw, ImageFont

    colours = palette(theme)
    # Without Raqm, which not every Pillow has, and which fails on some texts.
    font = ImageFont.truetype(_font_file(), 13, layout_engine=ImageFont.Layout.BASIC)
    gap, line = 12, 18
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    size = columns * (side + gap) + gap, rows * (side + 2 * line + gap) + gap
    sheet = Image.new("RGB", size, colours.background)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        left = gap + (number % columns) * (side + gap)
        top = gap + (number // columns) * (side + 2 * line + gap)
        fitted = _fit(tile.pixels, side)
        sheet.paste(fitted, (left + (side - fitted.width) // 2, top + line + (side - fitted.height) // 2))
        draw.rectangle((left - 1, top + line - 1, left + side, top + line + side), outline=colours.hair)
        for text, y, colour in (
            (tile.title, top, colours.ink),
            (tile.note, top + line + side + 2, colours.muted),
        ):
            line_of_text = _clip(plain(" ".join(text.split())), side, font.getlength)
            draw.text((left, y), line_of_text, fill=colour, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="png", optimize=False)
    return buffer.getvalue()


def _fit(pixels: NDArray[np.uint8], side: int) -> Image:
    """The image at the largest size that fits; small ones by whole factors, so that their pixels show."""
    from PIL import Image

    image = Image.fromarray(
        pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    )
    factor = side / max(image.size)
    how = Image.Resampling.BICUBIC
    if factor >= 2.0:
        factor, how = float(int(factor)), Image.Resampling.NEAREST
    size = [max(1, round(length * factor)) for length in image.size]
    return image.resize((size[0], size[1]), how).convert("RGB")


def _clip(text: str, width: float, measure: Any) -> str:
    if measure(text) <= width:
        return text
    while text and measure(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _font_file() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def _short(name: str) -> str:
    name = " ".join(name.split())
    return literal(name if len(name) <= 20 else f"{name[:19]}…")


def _first_two(theme: str) -> tuple[str, str]:
    """Blue and orange: training and test, right and wrong."""
    first, second, *_ = series(theme)
    return first, second


def _panels(
    count: int, ratios: Sequence[float], top: float, height: float = 4.0
) -> tuple[Figure, Sequence[Axes]]:
    # Without pyplot, which takes a second more; and with margins of our own, since a layout engine draws
    # everything twice.
    from matplotlib.figure import Figure

    width = 4.4 * count
    figure = Figure(figsize=(width, height), dpi=DPI)
    grid = {
        "left": 0.7 / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": top, "wspace": 0.26
    }  # fmt: skip
    panels: Sequence[Axes] = figure.subplots(1, count, gridspec_kw=grid | {"width_ratios": ratios})
    for axes in panels:
        axes.grid(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _legend_above(axes: Axes, columns: int | None = None) -> None:
    """What the lines stand for, above the axes and never on them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.01), borderaxespad=0.0,
            borderpad=0.0, ncols=columns or len(labels), fontsize=9,
        )  # fmt: skip


def _draw_errors(
    axes: Axes, at: list[float], measured: list[Line], mark: str | None, colours: tuple[str, str]
) -> None:
    wrong = _errors(measured, "test_accuracy")
    axes.plot(at, wrong, color=colours[0], marker=mark, label=f"top-1, at the end {wrong[-1]:.2f} %")
    top5 = [line for line in measured if line.get("test_top5") is not None]
    if top5:
        errors = _errors(top5, "test_top5")
        axes.plot(
            at[-len(top5) :],
            errors,
            color=colours[1],
            marker=mark,
            label=f"top-5, at the end {errors[-1]:.2f} %",
        )


def _log_scale(axes: Axes, least: float) -> None:
    """Makes the axis logarithmic where its values differ by more than the factor `least`; 0 has its place."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.ones(1)])
    values = values[np.isfinite(values)]
    above = values[values > 0.0]
    if not above.size or above.max() <= least * above.min():
        axes.set_ylim(bottom=0.0 if not values.size or values.min() <= 0.0 else None)
        return
    decades = 10.0 ** np.arange(np.floor(np.log10(above.min())), np.ceil(np.log10(above.max())) + 1)
    ticks = np.outer(decades, (1.0, 2.0, 5.0) if len(decades) < 5 else (1.0,)).ravel()
    low, high = 0.8 * above.min(), 1.25 * above.max()
    if values.min() > 0.0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=above.min(), linscale=0.3)
        ticks, low = np.append(ticks, 0.0), 0.0
    axes.set_yticks(ticks[(ticks >= low) & (ticks <= high)])
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(low, high)


def _between(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if "test_accuracy" not in line]


def _places(lines: Sequence[Line], measured: Sequence[Line]) -> tuple[float, str]:
    """How many steps make one unit of the axis, and what the axis is called."""
    if measured:
        return measured[-1]["step"] / measured[-1]["epoch"], "epoch"
    return 1.0, "step"


def _at(lines: Sequence[Line], unit: float) -> list[float]:
    return [line["step"] / unit for line in lines]


def _values(lines: Sequence[Line], key: str) -> list[float]:
    return [line[key] for line in lines]


def _errors(lines: Sequence[Line], key: str) -> list[float]:
    return [100.0 * (1.0 - line[key]) for line in lines]
