"""The report of one study: a page in Markdown, and the record from which all else is made."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convatlas.files import write_atomic, write_json
from convatlas.studies.arms import Compared
from convatlas.studies.figures import draw_study
from convatlas.studies.knobs import Knobs
from convatlas.studies.ledger import Entry
from convatlas.studies.protocol import Plan, is_frozen
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.verdict import Effect, Fact, Judgement
from convatlas.tables import Grid

RECORD = "study.json"
PAGE = "report.md"


def write_study(
    folder: Path,
    study: Study[Any],
    plan: Plan,
    outcome: Outcome,
    judgement: Judgement,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Writes the figures and, last, `study.json`, which marks the study as finished.

    Args:
        folder: of the run.
        study: which one.
        plan: protocol, knobs and seeds.
        outcome: what was found.
        judgement: what follows.
        facts: command, seconds, machine, versions and trainings.

    Returns:
        The record.
    """
    figures = {f"{study.name}.png": draw_study(judgement, outcome.compared), **outcome.figures}
    for name, image in figures.items():
        write_atomic(folder / name, image)
    record = facts | {
        "study": study.name,
        "version": study.version,
        "claim": study.claim,
        "kind": plan.kind,
        "preset": plan.preset,
        "hash": plan.digest,
        "frozen": is_frozen(study, plan.preset, plan.digest),
        "knobs": dataclasses.asdict(plan.knobs),
        "verdict": judgement.verdict.value,
        "objections": list(judgement.objections),
        "effects": [_effect(effect) for effect in judgement.effects],
        "facts": [dataclasses.asdict(fact) | {"verdict": fact.verdict.value} for fact in judgement.facts],
        "rates": _rates(outcome.compared),
        "figures": list(figures),
    }
    write_json(folder / RECORD, record)
    return record


def write_page(
    folder: Path,
    study: Study[Any],
    plan: Plan,
    outcome: Outcome,
    judgement: Judgement,
    record: dict[str, Any],
    ledger: Sequence[Entry],
) -> None:
    """Writes `report.md`."""
    parts = [*_claim(study, plan, judgement, record), *_measured(outcome, judgement)]
    parts += [markdown(table) for table in outcome.tables]
    parts += _how(study, plan, record, ledger)
    write_atomic(folder / PAGE, "\n\n".join(parts) + "\n")


def _effect(effect: Effect) -> dict[str, Any]:
    found, interval = effect.estimate, effect.interval
    entry: dict[str, Any] = dataclasses.asdict(effect.clause) | {
        "values": list(effect.values),
        "p_holds": effect.p_holds,
        "p_fails": effect.p_fails,
        "verdict": effect.verdict.value,
    }
    if found is not None and interval is not None:
        entry |= {"interval": dataclasses.asdict(interval), "images": found.images, "freedom": found.freedom}
    return entry


def _rates(compared: Compared | None) -> dict[str, Any]:
    if compared is None:
        return {}
    return {
        name: {"best": one.best, "trials": {f"{lr:g}": error for lr, error in one.trials.items()}}
        for name, one in compared.tuned.items()
    }


def _claim(study: Study[Any], plan: Plan, judgement: Judgement, record: dict[str, Any]) -> list[str]:
    parts = [f"# {study.name}: {judgement.verdict}", f"**Claim.** {study.claim}"]
    if plan.kind == "pilot":
        turned = ", ".join(f"{name} {value}" for name, value in plan.turned.items()) or "pilot seeds"
        parts.append(
            f"**This is a pilot** ({turned}): it says how a budget behaves, not whether the claim holds."
        )
    if judgement.objections:
        lines = "\n".join(f"- {text}" for text in judgement.objections)
        parts.append(f"**No verdict is given, because:**\n\n{lines}")
    parts.append(
        "Its clauses, each of which decides:\n\n"
        + "\n".join(f"- {c.says}" for c in study.clauses if c.decides)
    )
    parts.append(f"Source: {study.source}")
    if study.published:
        parts.append("What the source printed:\n\n" + "\n".join(f"- {line}" for line in study.published))
    parts += [f"![{Path(name).stem}]({name})" for name in record["figures"]]
    return parts


def _measured(outcome: Outcome, judgement: Judgement) -> list[str]:
    parts: list[str] = []
    if judgement.effects:
        parts.append(markdown(effect_table(judgement.effects)))
        parts.append(
            "Intervals are two-sided at 95 % and paired: over the seeds, and where `images` are "
            "given over the test "
            "images too. p is that of the clause, for equivalence by two one-sided tests, after "
            "Holm's correction over "
            "the clauses that decide."
        )
    if outcome.compared is not None:
        parts.append(markdown(arm_table(outcome.compared)))
    if judgement.facts:
        parts.append(markdown(fact_table(judgement.facts)))
    if outcome.reading:
        parts.append(outcome.reading)
    return parts


def effect_table(effects: Sequence[Effect]) -> Table:
    """Each clause with its effect, interval, p-value and verdict."""
    rows = tuple(
        (
            effect.clause.measure,
            "none" if effect.interval is None else str(effect.interval),
            effect.clause.unit,
            str(len(effect.values)),
            "-" if effect.estimate is None or not effect.estimate.images else f"{effect.estimate.images:,}",
            effect.clause.expects,
            f"{effect.p_holds:.2g}",
            effect.clause.published or "-",
            effect.verdict.value if effect.clause.decides else "(reported only)",
        )
        for effect in effects
    )
    heads = ("effect", "mean and 95 % interval", "unit", "n", "images", "claim", "p", "published", "verdict")
    return Table("Measured", heads, rows)


def effect_grid(effects: Sequence[Effect]) -> Grid:
    """The same for a terminal."""
    rows = [
        (
            effect.clause.name,
            effect.clause.unit,
            "none" if effect.interval is None else f"{effect.interval.mean:.3g}",
            "" if effect.interval is None else f"{effect.interval.low:.3g}",
            "" if effect.interval is None else f"{effect.interval.high:.3g}",
            str(len(effect.values)),
            f"{effect.p_holds:.2g}",
            effect.clause.expects,
            effect.verdict.value if effect.clause.decides else "reported only",
        )
        for effect in effects
    ]
    heads = ("clause", "unit", "effect", "95 % from", "to", "n", "p", "claim", "verdict")
    return Grid(heads, 2, rows, (), [], tail=2, lesser=("p", "n", "unit"))


def arm_table(compared: Compared) -> Table:
    """Each arm with its learning rate and errors."""
    rows: list[tuple[str, ...]] = []
    train = bool(compared.wrong_train)
    for name, tuned in compared.tuned.items():
        errors = compared.errors(name)
        trials = ", ".join(f"{lr:g}: {error:.1f}" for lr, error in tuned.trials.items())
        cells = [name, f"{tuned.best:g}", trials, f"{statistics.fmean(errors):.2f} %"]
        cells.append(", ".join(f"{error:.2f}" for error in errors))
        if train:
            cells.append(f"{statistics.fmean(compared.errors(name, 'train')):.2f} %")
        rows.append(tuple(cells))
    heads = ("arm", "learning rate", "validation error (%) by rate", "test error", "each seed")
    return Table("Arms", (*heads, "training error") if train else heads, tuple(rows))


def fact_table(facts: Sequence[Fact]) -> Table:
    """Each computed number beside what was claimed."""
    rows = tuple(
        (
            fact.name,
            f"{fact.value:,.6g}",
            f"{fact.claimed:,.6g}",
            fact.unit or "-",
            fact.note or "-",
            fact.verdict.value if fact.decides else "(reported only)",
        )
        for fact in facts
    )
    return Table("Computed, not sampled", ("fact", "computed", "claimed", "unit", "note", "verdict"), rows)


def _how(study: Study[Any], plan: Plan, record: dict[str, Any], ledger: Sequence[Entry]) -> list[str]:
    frozen = "frozen before its runs" if record["frozen"] else "not a frozen one"
    version = f"Protocol version {study.version}, preset {plan.preset}, hash `{plan.digest}`, {frozen}."
    parts = [f"**What was done.** {study.protocol}", version]
    if study.changes:
        parts.append(f"**Changes.** {study.changes}")
    rows = tuple(
        (
            f"{entry.kind}, {entry.preset}",
            f"{entry.version}",
            entry.digest,
            f"{entry.seeds[0]} to {entry.seeds[1]}",
            entry.budget,
            entry.verdict,
        )
        for entry in ledger
    )
    parts.append(markdown(Table("Every run", ("run", "version", "hash", "seeds", "budget", "verdict"), rows)))
    knobs = "\n".join(f"| {name} | {value} |" for name, value in record["knobs"].items())
    parts.append(f"## Repeat it\n\n    {record['command']}\n\n| knob ({plan.preset}) | |\n|---|---|\n{knobs}")
    machine, versions = record["machine"], record["versions"]
    parts.append(
        f"It took {record['seconds']:,.0f} s in all, all trainings included, on {machine['processor']}, "
        f"{machine['threads']} threads.\n"
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    return parts


def markdown(table: Table) -> str:
    """A table with its heading."""
    lines = [f"## {table.title}", "", _line(table.columns), _line(["---"] * len(table.columns))]
    return "\n".join(lines + [_line(row) for row in table.rows])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def describe(study: Study[Any]) -> str:
    """A study as text for a terminal: claim, clauses, source, protocol, presets."""
    lines = [f"{study.name}: {study.claim}", "", "Clauses, each of which decides:"]
    lines += [f"  {c.says}\n    {c.measure}: {c.expects} {c.unit}" for c in study.clauses if c.decides]
    lines += ["", f"Source: {study.source}", *(f"  {line}" for line in study.published)]
    lines += ["", f"What is done: {study.protocol}", "", f"Presets of version {study.version}:"]
    lines += [f"  {name:<9} {_knob_line(knobs)}" for name, knobs in study.presets.items()]
    return "\n".join(lines)


def _knob_line(knobs: Knobs) -> str:
    return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(knobs).items())
