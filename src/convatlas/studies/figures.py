"""The figure that every study has: each clause with its interval, and each seed of each arm."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from convatlas.plots.style import render
from convatlas.studies.arms import Compared
from convatlas.studies.verdict import Effect, Judgement, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {Verdict.HOLDS: "C2", Verdict.FAILS: "C3", Verdict.OPEN: "0.45"}
LONGEST = 34
"""Letters of a line of a label."""


def draw_study(judgement: Judgement, compared: Compared | None) -> bytes:
    """The clauses as intervals; with arms, their errors, learning curves and rates too, every seed shown."""
    rows = max(len(judgement.effects), 1)
    height = max(3.2, 1.2 + 0.75 * rows)
    if compared is None:
        return render(functools.partial(_draw_effects_alone, judgement), width=9.0, height=height)
    height += 3.6
    return render(functools.partial(_draw_all, judgement, compared), width=12.5, height=height)


def _draw_effects_alone(judgement: Judgement, figure: Figure) -> None:
    draw_effects(figure.subplots(), judgement.effects)


def _draw_all(judgement: Judgement, compared: Compared, figure: Figure) -> None:
    grid = figure.add_gridspec(2, 3, height_ratios=(3.4, 1.0 + 0.75 * len(judgement.effects)))
    draw_arms(figure.add_subplot(grid[0, 0]), compared)
    draw_losses(figure.add_subplot(grid[0, 1]), compared)
    draw_rates(figure.add_subplot(grid[0, 2]), compared)
    draw_effects(figure.add_subplot(grid[1, :]), judgement.effects)


def draw_arms(axes: Axes, compared: Compared) -> None:
    """Test error of each arm, a dot for each seed; hollow dots are training errors."""
    for place, name in enumerate(compared.wrong):
        errors = compared.errors(name)
        axes.scatter(errors, [place] * len(errors), color=f"C{place % 10}", s=18, alpha=0.7, zorder=3)
        axes.vlines(sum(errors) / len(errors), place - 0.25, place + 0.25, color=f"C{place % 10}")
        if name in compared.wrong_train:
            train = compared.errors(name, "train")
            axes.scatter(
                train, [place + 0.18] * len(train), edgecolors=f"C{place % 10}", facecolors="none", s=18
            )
    axes.set_yticks(range(len(compared.wrong)), [wrapped(name, 16) for name in compared.wrong])
    axes.set_ylim(len(compared.wrong) - 0.5, -0.5)
    title = "each seed (hollow: training images)" if compared.wrong_train else "each seed"
    axes.set(xlabel="test error (%)", title=title)


def draw_losses(axes: Axes, compared: Compared) -> None:
    """Training loss by epoch, a line for each seed of each arm."""
    for place, (_, trained) in enumerate(compared.trained.items()):
        for one in trained:
            if one is not None:
                losses = one.losses
                style = "o-" if len(losses) == 1 else "-"
                axes.plot(range(1, len(losses) + 1), losses, style, color=f"C{place % 10}", lw=1.0, alpha=0.7)
    axes.set(xlabel="epoch", ylabel="training loss", title="training loss, each seed")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value == int(value) else "")


def draw_rates(axes: Axes, compared: Compared) -> None:
    """Validation error by learning rate for each arm; a ring around the rate that was taken."""
    for place, (_, tuned) in enumerate(compared.tuned.items()):
        axes.plot(list(tuned.trials), list(tuned.trials.values()), ".-", color=f"C{place % 10}", lw=1.0)
        axes.plot(tuned.best, tuned.trials[tuned.best], "o", mec=f"C{place % 10}", mfc="none", ms=9)
    axes.set(xlabel="learning rate", ylabel="validation error (%)", xscale="log", title="choice of the rate")
    axes.set_xticks(sorted({lr for tuned in compared.tuned.values() for lr in tuned.trials}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.tick_params("x", labelsize=8, rotation=45)


def draw_effects(axes: Axes, effects: tuple[Effect, ...]) -> None:
    """Each clause: its 95 % interval over its values, and what the claim says in grey.

    Effects have different units, so each is drawn in shares of its own range.
    """
    axes.axvline(0.0, color="0.6", lw=0.8, ls=":")
    for place, effect in enumerate(effects):
        _draw_effect(axes, place, effect)
    labels = [f"{wrapped(e.clause.measure, LONGEST)}\n({e.clause.unit})" for e in effects]
    axes.set_yticks(range(len(effects)), labels, fontsize=8)
    axes.set_ylim(len(effects) - 0.4, -0.6)
    axes.set_xlim(-1.15, 1.75)
    axes.set_xticks([])
    axes.set_title("effects: 95 % interval, each seed as a dot; shaded: what the claim says", fontsize=10)


def _draw_effect(axes: Axes, place: int, effect: Effect) -> None:
    clause, found = effect.clause, effect.interval
    bounds = [abs(b) for b in (clause.above, clause.below, clause.within) if b is not None]
    ends = [abs(found.low), abs(found.high)] if found else []
    unit = max([*map(abs, effect.values), *bounds, *ends, 1e-12])
    low = (
        clause.above
        if clause.above is not None
        else -clause.within
        if clause.within is not None
        else -unit * 1.1
    )
    high = (
        clause.below
        if clause.below is not None
        else clause.within
        if clause.within is not None
        else unit * 1.1
    )
    axes.barh(place, (high - low) / unit, left=low / unit, height=0.72, color="0.92", zorder=0)
    colour = COLOURS[effect.verdict] if clause.decides else "C0"
    axes.scatter(
        [v / unit for v in effect.values], [place - 0.18] * len(effect.values), s=10, color=colour, alpha=0.6
    )
    if found is not None:
        axes.plot([found.low / unit, found.high / unit], [place + 0.1] * 2, color=colour, lw=2.4)
        axes.plot(found.mean / unit, place + 0.1, "o", color=colour, ms=5)
    said = f"{found}" if found else "no interval"
    axes.text(
        1.18, place, f"{said}\n{effect.verdict if clause.decides else 'reported'}", va="center", fontsize=8
    )


def wrapped(text: str, width: int) -> str:
    """Lines of at most so many letters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width, break_long_words=False))
