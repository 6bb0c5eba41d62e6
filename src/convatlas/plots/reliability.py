"""The reliability diagram: accuracy against confidence.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", Figure 1.
"""

from __future__ import annotations

from convatlas.metrics.calibration import Calibration
from convatlas.plots.style import DPI, png, series, styled


def draw_reliability(calibration: Calibration, *, theme: str = "light") -> bytes:
    """Draws accuracy against confidence, and how many predictions have which, as a PNG.

    Args:
        calibration: of labelled images.
        theme: light, dark or print.

    Raises:
        UnknownNameError: there is no such theme.
    """
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    with styled(theme) as colours:
        right, gap = series(theme)[:2]
        figure = Figure(figsize=(4.6, 5.4), dpi=DPI)
        grid = {"left": 0.145, "right": 0.965, "bottom": 0.095, "top": 0.86, "hspace": 0.12}
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw=grid)
        width = 0.94 / len(calibration.bins)
        total = sum(each.count for each in calibration.bins)
        light = to_rgba(gap, 0.3)
        for each in calibration.bins:
            if each.confidence is None or each.accuracy is None:
                continue
            middle, off = (each.low + each.high) / 2.0, each.confidence - each.accuracy
            upper.bar(middle, each.accuracy, width, color=right, zorder=2)
            upper.bar(
                middle, off, width, bottom=each.accuracy, color=light, edgecolor=gap, linewidth=0.8, zorder=3
            )
            lower.bar(middle, each.count / total, width, color=colours.muted, zorder=2)
        upper.plot((0.0, 1.0), (0.0, 1.0), color=colours.ink, linestyle="--", linewidth=1.0, zorder=4)
        upper.bar(0.0, 0.0, color=right, label="accuracy")
        upper.bar(0.0, 0.0, color=light, edgecolor=gap, label="gap to the confidence")
        upper.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.01),
            ncols=2,
            borderaxespad=0.0,
            borderpad=0.0,
            fontsize=9,
        )
        upper.set(ylabel="share that is right", xlim=(0.0, 1.0), ylim=(0.0, 1.0))
        figure.suptitle(
            f"calibration error {calibration.error:.2%}",
            x=0.03,
            y=0.97,
            ha="left",
            fontsize=13,
            weight="bold",
        )
        lower.set(xlabel="probability of the prediction", ylabel="predictions")
        lower.yaxis.set_major_formatter("{x:.0%}")
        for axes in (upper, lower):
            axes.grid(True)
            axes.spines[["top", "right"]].set_visible(False)
        return png(figure)
