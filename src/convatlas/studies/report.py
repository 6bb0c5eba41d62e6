"""Reports: one page in Markdown for a study, and one HTML file for all that are finished."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convatlas.files import write_atomic, write_json
from convatlas.studies.study import Knobs, Outcome, Study, Table
from convatlas.studies.verdict import Effect, Fact, conclude

RECORD = "study.json"
PAGE = "report.md"


def write_study(folder: Path, study: Study[Any], record: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Writes the figures, `report.md` and, last, `study.json`, which marks the study as finished.

    Args:
        folder: of the study and preset.
        study: which one.
        record: preset, knobs, command, seconds, machine and versions.
        outcome: what was found.

    Returns:
        The record with the outcome in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in outcome.figures.items():
        write_atomic(folder / name, image)
    record = record | {
        "study": study.name,
        "claim": study.claim,
        "verdict": conclude(outcome.findings).value,
        "findings": [_finding(finding) for finding in outcome.findings],
        "figures": list(outcome.figures),
    }
    page = "\n\n".join(_sections(study, record, outcome)) + "\n"
    write_atomic(folder / PAGE, page)
    write_json(folder / RECORD, record)
    return record


def read_records(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The finished studies below a folder, by name, with the folder of each."""
    found = [
        (path.parent, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(root.glob(f"*/*/{RECORD}"))
    ]
    return sorted(found, key=lambda entry: (entry[1]["study"], entry[1]["preset"]))


def write_html(root: Path, path: Path) -> int:
    """Writes all finished studies below `root` as one HTML file with the figures inside it.

    Returns:
        How many there are.

    Raises:
        ValueError: there is none.
    """
    records = read_records(root)
    if not records:
        raise ValueError(
            f"{root}: no finished study there; run one, for example `convatlas study run depthwise`"
        )
    rows = "".join(_html_row(record) for _, record in records)
    parts = "".join(_html_part(folder, record) for folder, record in records)
    write_atomic(path, _HTML.replace("{rows}", rows).replace("{parts}", parts))
    return len(records)


def _finding(finding: Effect | Fact) -> dict[str, Any]:
    entry = dataclasses.asdict(finding) | {
        "kind": type(finding).__name__.lower(),
        "verdict": finding.verdict.value,
    }
    if isinstance(finding, Effect) and (found := finding.interval) is not None:
        entry["interval"] = dataclasses.asdict(found)
        entry["effect_size"] = finding.size
    return entry


def _sections(study: Study[Any], record: dict[str, Any], outcome: Outcome) -> list[str]:
    effects = [finding for finding in outcome.findings if isinstance(finding, Effect)]
    facts = [finding for finding in outcome.findings if isinstance(finding, Fact)]
    parts = [f"# {study.name}: {record['verdict']}", f"**Claim.** {study.claim}", f"Source: {study.source}"]
    if study.published:
        parts.append("What the source printed:\n\n" + "\n".join(f"- {line}" for line in study.published))
    parts += [f"![{Path(name).stem}]({name})" for name in outcome.figures]
    if effects:
        parts.append(_markdown(_effect_table(effects)))
        if any(finding.interval is None for finding in effects):
            parts.append("One seed gives no interval, and so no verdict: use `--seeds 3` or more.")
    if facts:
        parts.append(_markdown(_fact_table(facts)))
    if outcome.reading:
        parts.append(outcome.reading)
    parts += [_markdown(table) for table in outcome.tables]
    parts.append(f"**What was done.** {study.protocol}\n\n**What would refute it.** {study.refuted_by}")
    knobs = "\n".join(f"| {name} | {value} |" for name, value in record["knobs"].items())
    parts.append(
        f"## Repeat it\n\n    {record['command']}\n\n| knob ({record['preset']}) | |\n|---|---|\n{knobs}"
    )
    machine, versions = record["machine"], record["versions"]
    parts.append(
        f"It took {record['seconds']:,.0f} s in all, all trainings included, on {machine['processor']}, "
        f"{machine['threads']} threads.\n"
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    return parts


def _effect_table(effects: Sequence[Effect]) -> Table:
    rows: list[tuple[str, ...]] = []
    for effect in effects:
        found = effect.interval
        rows.append(
            (
                effect.name,
                str(found) if found else "none",
                effect.unit,
                "-" if effect.size is None else f"{effect.size:.1f}",
                str(len(effect.values)),
                f"more than {effect.least:g}",
                effect.published or "-",
                effect.verdict.value if effect.decides else "(reported only)",
            )
        )
    heads = ("effect", "mean and 95 % interval", "unit", "d", "n", "claim", "published", "verdict")
    return Table("Measured", heads, tuple(rows))


def _fact_table(facts: Sequence[Fact]) -> Table:
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
    return Table("Computed", ("fact", "computed", "claimed", "unit", "note", "verdict"), rows)


def _markdown(table: Table) -> str:
    lines = [f"## {table.title}", "", _line(table.columns), _line(["---"] * len(table.columns))]
    return "\n".join(lines + [_line(row) for row in table.rows])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html_row(record: dict[str, Any]) -> str:
    cells = (
        f'<a href="#{record["study"]}-{record["preset"]}">{html.escape(record["study"])}</a>',
        html.escape(record["preset"]),
        html.escape(record["claim"]),
        f'<span class="{_mark(record)}">{html.escape(record["verdict"])}</span>',
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _mark(record: dict[str, Any]) -> str:
    return {"holds": "holds", "does not hold": "fails"}.get(record["verdict"], "open")


def _html_part(folder: Path, record: dict[str, Any]) -> str:
    from markdown_it import MarkdownIt

    page = (folder / PAGE).read_text(encoding="utf-8")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(page)
    for name in record["figures"]:
        image = base64.b64encode((folder / name).read_bytes()).decode("ascii")
        body = body.replace(f'src="{html.escape(name)}"', f'src="data:image/png;base64,{image}"')
    return f'<section id="{record["study"]}-{record["preset"]}">\n{body}</section>\n'


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>convatlas: studies</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; }
td, th { border-bottom: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: 0.6rem; overflow-x: auto; }
section { border-top: 3px solid #ddd; margin-top: 3rem; }
.holds { color: #17722f; font-weight: 600; }
.fails { color: #a61c1c; font-weight: 600; }
.open { color: #666; font-weight: 600; }
</style>
</head>
<body>
<h1>The claims, tested</h1>
<table><tr><th>study</th><th>preset</th><th>claim</th><th>verdict</th></tr>
{rows}</table>
{parts}</body>
</html>
"""


def describe(study: Study[Any]) -> str:
    """A study as text for a terminal: claim, source, protocol, presets."""
    lines = [f"{study.name}: {study.claim}", "", f"Source: {study.source}"]
    lines += [f"  {line}" for line in study.published]
    lines += [
        "",
        f"What is done: {study.protocol}",
        f"What would refute it: {study.refuted_by}",
        "",
        "Presets:",
    ]
    for name, knobs in study.presets.items():
        lines.append(f"  {name:<9} {_knob_line(knobs)}")
    return "\n".join(lines)


def _knob_line(knobs: Knobs) -> str:
    return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(knobs).items())
