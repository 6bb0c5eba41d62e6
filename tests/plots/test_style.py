"""The look of charts: themes, legends that do not lie on data, whole numbers where things are counted."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas.drawing.palette import PALETTES
from convatlas.errors import UnknownNameError
from convatlas.metrics.calibration import calibrate
from convatlas.plots.reliability import draw_reliability
from convatlas.plots.style import render, series
from convatlas.plots.training import Tile, draw_comparison, draw_confusion, draw_curves, draw_tiles
from made_runs import lines

CALIBRATION = calibrate(np.linspace(0.5, 1.0, 40), np.arange(40) % 4 > 0)
CHARTS: dict[str, Any] = {
    "curves": lambda theme: draw_curves("lenet5", lines(3), theme=theme),
    "comparison": lambda theme: draw_comparison(["a", "b"], [lines(2), lines(3)], theme=theme),
    "confusion": lambda theme: draw_confusion(np.diag([5, 4, 3]), ["a", "b", "c"], theme=theme),
    "tiles": lambda theme: draw_tiles([Tile(np.zeros((1, 8, 8), np.uint8), "a", "b")], theme=theme),
    "reliability": lambda theme: draw_reliability(CALIBRATION, theme=theme),
    "study": lambda theme: render(lambda figure: figure.subplots().plot([1, 2], "k"), theme=theme),
}


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_has_three_themes(chart: str, theme: str) -> None:
    image = np.asarray(Image.open(io.BytesIO(CHARTS[chart](theme))).convert("RGB"))
    assert tuple(image[0, 0]) == tuple(image[-1, -1]) == rgb(PALETTES[theme].background)
    # What is written has contrast: pure black never stands on the dark ground.
    if theme == "dark" and chart != "tiles":
        assert image.reshape(-1, 3).sum(axis=1).min() > 20


@pytest.mark.parametrize("chart", CHARTS)
def test_an_unknown_theme(chart: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown theme 'drak'; nearest: dark"):
        CHARTS[chart]("drak")


@pytest.mark.parametrize("columns", [1, 3])
def test_legends_stand_below_the_data_and_do_not_overlap(columns: int) -> None:
    kept: list[Any] = []

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, columns, squeeze=False)[0]
        for axes in panels:
            for number in range(5):
                axes.plot([1, 2], [number, 0], label=f"a series with a longer name {number}")
            axes.set(xlabel="epoch", ylabel="loss", title="t")
            axes.legend(loc="upper right")
        kept.append(figure)

    render(draw, width=9.0)
    (figure,) = kept
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        below = axes.xaxis.get_tightbbox(figure.canvas.get_renderer())
        assert legend.y1 <= below.y0 + 1
        assert legend.y0 >= 0 and legend.x1 <= figure.bbox.x1
        assert len(axes.get_legend().get_texts()) == 5


def test_epochs_are_whole_numbers() -> None:
    kept: list[Any] = []

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.plot([1, 2, 3], [3.0, 2.0, 1.0])
        left.set(xlabel="epoch", ylabel="loss")
        right.bar(["one", "two"], [1, 2])
        right.set(xlabel="epochs of each", ylabel="epochs")
        kept.extend([left, right])

    render(draw)
    left, right = kept
    assert all(float(tick).is_integer() for tick in left.get_xticks())
    assert not all(float(tick).is_integer() for tick in left.get_yticks())
    # Words of an axis stay.
    assert [text.get_text() for text in right.get_xticklabels()] == ["one", "two"]
    assert all(float(tick).is_integer() for tick in right.get_yticks())


def test_series_of_a_theme_differ() -> None:
    for theme in ("light", "dark", "print"):
        assert len(set(series(theme))) == 8
