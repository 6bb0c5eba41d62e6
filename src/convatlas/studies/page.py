"""All finished studies as one HTML page that opens from disk."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from convatlas.files import write_atomic
from convatlas.studies.index import CLAIMS
from convatlas.studies.protocol import is_new_version, mismatch
from convatlas.studies.report import PAGE, RECORD
from convatlas.studies.study import find_study

Record = dict[str, Any]


def read_records(root: Path) -> list[tuple[Path, Record]]:
    """The finished studies below a folder, in the order of the course, with the folder of each.

    A record that does not match the protocol stored beside it has no verdict; `withheld` says why.
    """
    found: list[tuple[Path, Record]] = []
    for path in sorted(root.glob(f"*/*/{RECORD}")):
        record = json.loads(path.read_text(encoding="utf-8"))
        reason = mismatch(record, path.parent)
        if reason:
            record |= {"verdict": "no verdict", "withheld": reason}
        elif record["study"] in CLAIMS:
            record["outdated"] = is_new_version(find_study(record["study"]), record)
        found.append((path.parent, record))
    order = list(CLAIMS)

    def place(entry: tuple[Path, Record]) -> tuple[int, str]:
        name = entry[1]["study"]
        return (order.index(name) if name in order else len(order), entry[0].name)

    return sorted(found, key=place)


def write_html(root: Path, path: Path) -> int:
    """Writes all finished studies below `root` as one HTML file with the figures inside it.

    Returns:
        How many there are.

    Raises:
        ValueError: if there is none.
    """
    records = read_records(root)
    if not records:
        raise ValueError(
            f"{root}: no finished study there; run one, for example `convatlas study run depthwise`"
        )
    rows = "".join(_row(folder, record) for folder, record in records)
    parts = "".join(_part(folder, record) for folder, record in records)
    write_atomic(path, _HTML.replace("{rows}", rows).replace("{parts}", parts))
    return len(records)


def _anchor(folder: Path, record: Record) -> str:
    return html.escape(f"{record['study']}-{folder.name}", quote=True)


def _row(folder: Path, record: Record) -> str:
    cells = (
        f'<a href="#{_anchor(folder, record)}">{html.escape(record["study"])}</a>',
        html.escape(folder.name),
        html.escape(record["claim"]),
        f'<span class="{_mark(record)}">{html.escape(record["verdict"])}</span>',
        html.escape("; ".join(record.get("objections", ())) or record.get("withheld", "")),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _mark(record: Record) -> str:
    return {"holds": "holds", "does not hold": "fails"}.get(record["verdict"], "open")


def _part(folder: Path, record: Record) -> str:
    from markdown_it import MarkdownIt

    head = f'<section id="{_anchor(folder, record)}">\n'
    notes = [record[key] for key in ("withheld", "outdated") if record.get(key)]
    head += "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in notes)
    if record.get("withheld"):
        return f"{head}<h1>{html.escape(record['study'])}: no verdict</h1></section>\n"
    page = (folder / PAGE).read_text(encoding="utf-8")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(page)
    for name in record["figures"]:
        image = base64.b64encode((folder / name).read_bytes()).decode("ascii")
        body = body.replace(f'src="{html.escape(name)}"', f'src="data:image/png;base64,{image}"')
    return f"{head}{body}</section>\n"


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>convatlas: studies</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: 0.6rem; overflow-x: auto; }
section { border-top: 3px solid #ddd; margin-top: 3rem; }
.holds { color: #17722f; font-weight: 600; }
.fails { color: #a61c1c; font-weight: 600; }
.open { color: #666; font-weight: 600; }
.note { background: #fff4d6; padding: 0.5rem; }
</style>
</head>
<body>
<h1>The claims, tested</h1>
<table><tr><th>study</th><th>run</th><th>claim</th><th>verdict</th><th>why there is none</th></tr>
{rows}</table>
{parts}</body>
</html>
"""
