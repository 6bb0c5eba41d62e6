"""The report of a search: what it found, and whether searching was worth it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from convatlas.escape import plain
from convatlas.files import write_atomic
from convatlas.plots.style import render
from convatlas.search.architecture import Architecture, Space, Task
from convatlas.search.schedule import CALIBRATION, calibrate, known_values
from convatlas.search.spec import SearchSpec
from convatlas.search.store import Job, Store


def beats(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """P(ours > theirs) with a 95 % interval: (estimate, low, high).

    Values of the same repeat are compared, a tie counts half. The interval is Jeffreys' for a proportion,
    which is honest about few repeats: three of three is no evidence yet.
    """
    count = min(len(ours), len(theirs))
    if count == 0:
        return 0.5, 0.0, 1.0
    wins = sum((a > b) + 0.5 * (a == b) for a, b in zip(ours, theirs, strict=False))
    low = 0.0 if wins == 0 else float(stats.beta.ppf(0.025, wins + 0.5, count - wins + 0.5))
    high = 1.0 if wins == count else float(stats.beta.ppf(0.975, wins + 0.5, count - wins + 0.5))
    return wins / count, low, high


def verdict(interval: tuple[float, float, float]) -> str:
    """What an interval of P(ours > theirs) says."""
    _, low, high = interval
    if low > 0.5:
        return "better"
    return "worse" if high < 0.5 else "no evidence"


def by_text(jobs: Sequence[Job], role: str) -> dict[str, list[float]]:
    """Values of each architecture of a role, in the order of repeats."""
    values: dict[str, list[float]] = {}
    for job in jobs:
        if job.detail.get("role") == role and job.value is not None:
            values.setdefault(job.text, []).append(job.value)
    return values


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points (cost, value) no other point beats in both: cheaper or equal, and better or equal."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    highest = -math.inf
    for i in order:
        if points[i][1] > highest:
            front.append(i)
            highest = points[i][1]
    return front


def write_report(
    folder: Path, store: Store, spec: SearchSpec, space: Space, task: Task
) -> Architecture | None:
    """Writes `report.md`, `report.html` and `front.png`.

    Returns:
        The architecture that the search ends with; None where none succeeded.
    """
    from markdown_it import MarkdownIt

    arms = {arm: store.jobs(arm) for arm in ("search", "random", "confirm", "retrain")}
    confirmed = by_text(arms["confirm"], "search")
    winner = max(confirmed, key=lambda text: float(np.mean(confirmed[text])), default=None)
    lines = [f"# Search in {plain(spec.space, 'markdown')} for {plain(spec.data, 'markdown')}", ""]
    lines += _verdict_lines(arms, winner)
    lines += _costs_of_winner(space, task, winner, store)
    lines += _retrained(arms)
    lines += _winners_curse(arms, confirmed)
    lines += _rungs(arms["search"], spec)
    lines += _front_table(arms["search"], space, task)
    lines += _spent(arms, space, task, spec)
    lines += _how(spec)
    text = "\n".join(lines) + "\n"
    write_atomic(folder / "front.png", draw_front(arms, space, task))
    write_atomic(folder / "report.md", text)
    body = MarkdownIt().enable("table").render(text)
    write_atomic(folder / "report.html", _PAGE.format(title=plain(spec.space, "html"), body=body))
    return None if winner is None else Architecture(space, space.choices_of(winner))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Search in {title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto;
  padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2rem .8rem; border-bottom: 1px solid #ddd; }}
td {{ font-variant-numeric: tabular-nums; }} code {{ overflow-wrap: anywhere; }} img {{ max-width: 100%; }}
</style></head><body>
{body}
</body></html>
"""


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "none succeeded"
    mean = float(np.mean(values))
    spread = f" ± {100 * float(np.std(values, ddof=1)):.2f}" if len(values) > 1 else ""
    return f"{100 * mean:.2f}{spread}"


def _verdict_lines(arms: dict[str, list[Job]], winner: str | None) -> list[str]:
    ours = by_text(arms["retrain"], "search").get(winner or "", [])
    lines: list[str] = ["## Was searching worth it?", ""]
    for role, name in (("random", "random search"), ("size", "the largest network within the limits")):
        theirs = next(iter(by_text(arms["retrain"], role).values()), [])
        interval = beats(ours, theirs)
        said = {
            "better": f"The search beats {name}.",
            "worse": f"The search does worse than {name}.",
            "no evidence": f"There is no evidence that the search beats {name}.",
        }[verdict(interval)]
        lines.append(
            f"- **{said}** P(search better) = {interval[0]:.2f}, 95 % interval {interval[1]:.2f} to "
            f"{interval[2]:.2f}; test accuracy {_percent(ours)} % against {_percent(theirs)} % "
            f"({len(ours)} and {len(theirs)} trainings with fresh seeds)."
        )
    return [*lines, ""]


def _costs_of_winner(space: Space, task: Task, winner: str | None, store: Store) -> list[str]:
    if winner is None:
        return ["No evaluation succeeded.", ""]
    found = Architecture(space, space.choices_of(winner))
    lines = ["## The network", "", f"`{winner}`", ""]
    costs = found.costs(task)
    if costs is not None:
        lines.append(
            f"{costs.params:,} parameters, {costs.macs:,} multiply-adds, {costs.activation_bytes:,} bytes of "
            "activations in float32."
        )
    latency = store.latencies().get(found.key)
    if latency is not None:
        lines.append(f"Latency of one image, measured here: {1e3 * latency:.3g} ms.")
    return [*lines, "", "![values against parameters](front.png)", ""]


def _retrained(arms: dict[str, list[Job]]) -> list[str]:
    lines = [
        "## Trained on train plus validation, measured once on the test images",
        "",
        "| found by | test accuracy, % | architecture |",
        "|---|---|---|",
    ]
    for role in ("search", "random", "size"):
        for text, values in by_text(arms["retrain"], role).items():
            lines.append(f"| {role} | {_percent(values)} | `{text.replace('|', chr(92) + '|')}` |")
    return [*lines, ""]


def _winners_curse(arms: dict[str, list[Job]], confirmed: dict[str, list[float]]) -> list[str]:
    searched = {job.text: job.value for job in arms["search"] if job.value is not None}
    rows = [
        (text, searched[text], float(np.mean(values)))
        for text, values in confirmed.items()
        if text in searched
    ]
    if not rows:
        return []
    lines = [
        "## Winner's curse",
        "",
        "The best values of a search are lucky ones. On the same validation images, with fresh seeds:",
        "",
        "| in the search, % | fresh seeds, % | difference, points |",
        "|---|---|---|",
    ]
    lines += [f"| {100 * a:.2f} | {100 * b:.2f} | {100 * (b - a):+.2f} |" for _, a, b in rows]
    return [*lines, ""]


def _rungs(jobs: list[Job], spec: SearchSpec) -> list[str]:
    if len(spec.rungs) == 1:
        return []
    state = calibrate(known_values(jobs), len(spec.rungs), min(CALIBRATION, spec.evaluations))
    if state is None:
        return []
    told = ", ".join(
        f"{epochs} epochs: {value:.2f}" for epochs, value in zip(spec.rungs, state.correlations, strict=False)
    )
    use = "Early stopping was used." if state.used else "That is below 0.6, so early stopping was not used."
    return ["## Rungs", "", f"Rank correlation with {spec.rungs[-1]} epochs: {told}. {use}", ""]


def _points(jobs: list[Job], space: Space, task: Task) -> list[tuple[str, Any, float]]:
    values = {job.text: job.value for job in jobs if job.value is not None}
    found = [(text, space.costs(space.choices_of(text), task), value) for text, value in values.items()]
    return [(text, costs, value) for text, costs, value in found if costs is not None]


def _front_table(jobs: list[Job], space: Space, task: Task) -> list[str]:
    points = _points(jobs, space, task)
    if not points:
        return []
    front = pareto([(costs.params, value) for _, costs, value in points])
    lines = [
        "## Pareto front: no other network is both smaller and better",
        "",
        "| parameters | multiply-adds | value, % | architecture |",
        "|---|---|---|---|",
    ]
    for i in front:
        text, costs, value = points[i]
        escaped = text.replace("|", "\\|")
        lines.append(f"| {costs.params:,} | {costs.macs:,} | {100 * value:.2f} | `{escaped}` |")
    return [*lines, ""]


def _spent(arms: dict[str, list[Job]], space: Space, task: Task, spec: SearchSpec) -> list[str]:
    lines = ["## Spent", "", "| | trainings | failed | hours of one core |", "|---|---|---|---|"]
    for arm, jobs in arms.items():
        failed = sum(job.state == "failed" for job in jobs)
        lines.append(f"| {arm} | {len(jobs)} | {failed} | {sum(job.seconds for job in jobs) / 3600:.3f} |")
    macs = 0
    for jobs in arms.values():
        for job in jobs:
            costs = space.costs(space.choices_of(job.text), task)
            macs += 0 if costs is None else costs.macs * spec.rungs[min(job.rung, len(spec.rungs) - 1)]
    reasons = [job for jobs in arms.values() for job in jobs if job.state == "failed"]
    lines += [
        "",
        f"{macs:,} multiply-adds of forward passes for each image, all trainings together.",
    ]
    if reasons:
        why = plain(reasons[0].detail.get("reason", ""), "markdown")
        lines += ["", f"{len(reasons)} evaluations failed; the first of them, of `{reasons[0].text}`: {why}"]
    return [*lines, ""]


def _how(spec: SearchSpec) -> list[str]:
    limits = {
        name: getattr(spec, name)
        for name in ("max_macs", "max_params", "max_memory", "max_latency")
        if getattr(spec, name) is not None
    }
    said = ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none"
    return [
        "## How",
        "",
        f"Algorithm {spec.algorithm}, {spec.evaluations} evaluations, seed {spec.seed}, lag {spec.lag}; "
        f"epochs {', '.join(map(str, spec.rungs))}; limits: {said}. The same search: `{spec.digest}`.",
    ]


def draw_front(arms: dict[str, list[Job]], space: Space, task: Task) -> bytes:
    """The image of values against parameters: a PNG."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for arm, colour, label in (("random", "C7", "random search"), ("search", "C0", "search")):
            points = _points(arms[arm], space, task)
            sizes, values = [c.params for _, c, _ in points], [100 * v for _, _, v in points]
            axes.scatter(sizes, values, s=18, color=colour, label=label, alpha=0.75, linewidths=0)
            if arm == "search" and points:
                front = pareto(list(zip(sizes, values, strict=True)))
                axes.step(
                    [sizes[i] for i in front], [values[i] for i in front], where="post", color=colour, lw=1
                )
        axes.set_xlabel("parameters")
        axes.set_ylabel("validation accuracy, %")
        axes.set_xscale("log")
        axes.legend()

    return render(draw)
