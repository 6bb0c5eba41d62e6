"""Copies the report of a study that was run here, with its images, into docs/studies.

./run python scripts/publish_study.py NAME [--preset quick] [--out studies]

Writes the table of all studies, docs/studies/README.md, from the published pages; without NAME only that.
"""

import argparse
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

from convatlas.studies.index import CLAIMS

DOCS = Path(__file__).resolve().parents[1] / "docs" / "studies"
README, TRIED = "README.md", "tried.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", nargs="?", choices=list(CLAIMS), metavar="NAME")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--out", type=Path, default=Path("studies"), help="as `convatlas study run` had it")
    arguments = parser.parse_args()
    if arguments.name is not None:
        publish(arguments.name, arguments.out / arguments.name / arguments.preset)
    for page in DOCS.glob("*.md"):
        if page.stem in CLAIMS:
            text = page.read_text(encoding="utf-8")
            page.write_text(with_tried(text, _tried(page.stem)), encoding="utf-8")
    (DOCS / README).write_text(table_page(DOCS), encoding="utf-8")


def publish(name: str, folder: Path) -> None:
    """Copies a report; images get the study's name in front where they have it not."""
    text = (folder / "report.md").read_text(encoding="utf-8")
    for image in sorted(folder.glob("*.png")):
        named = image.name if image.stem.startswith(name) else f"{name}-{image.name}"
        text = text.replace(f"({image.name})", f"({named})")
        shutil.copyfile(image, DOCS / named)
    (DOCS / f"{name}.md").write_text(with_tried(text, _tried(name)), encoding="utf-8")


def _tried(name: str) -> dict[str, Any]:
    return tomllib.loads((DOCS / TRIED).read_text(encoding="utf-8")).get(name, {})


def version_of(page: str) -> int:
    """Version of the protocol that a page was made by; pages of the first version do not say."""
    match = re.search(r"^Protocol version (\d+)", page, re.MULTILINE)
    return int(match[1]) if match else 1


def with_tried(page: str, entry: dict[str, Any]) -> str:
    """A page whose first lines say by which version it was made, and what was tried before.

    Args:
        page: as the study wrote it, or as this function returned it.
        entry: of `docs/studies/tried.toml`, which is about version 1.
    """
    title, _, rest = page.partition("\n")
    rest = re.sub(r"\A\n(?:>.*\n)+", "", rest)
    name, _, found = title.removeprefix("# ").partition(": ")
    tried, verdict = entry.get("tried", []), entry.get("verdict", found)
    before = "; ".join(tried) + "." if tried else "none."
    if version_of(page) == 1:
        lines = [
            "Made by version 1 of this study's protocol. Version 2, which splits the claim into "
            "clauses, tunes every "
            "arm and freezes its budgets beforehand, has not been published yet.",
            f"Budgets that were published before this one: {before} Pilots were not kept, so "
            f"settings that were "
            "tried without being published are not known.",
        ]
        lines += ["The verdict above is what the numbers support."] if "verdict" in entry else []
    else:
        verdict = found
        said = f", with the verdict: {entry['verdict']}" if "verdict" in entry else ""
        lines = [f"Version 1 of this study was published{said}. Budgets tried before it: {before}"]
    lines += [entry["note"]] if "note" in entry else []
    said = "".join(f"> {line}\n" for line in lines)
    return f"# {name}: {verdict}\n\n{said}{rest}"


def table_page(docs: Path) -> str:
    """The table of all studies in the order of the course, read from the pages that are published."""
    rows = [_row(name, docs / f"{name}.md") for name in CLAIMS]
    return (
        "# Studies\n\n"
        "Each claim of the papers is a program that measures it and gives a verdict. The claim is split into "
        "clauses, each with its direction or its margin; budgets, seeds, grids and margins are "
        "frozen before the "
        "first run, and their hash stands in the report. Every arm gets its best learning rate from "
        "one grid, by "
        "validation images; arms that have not learnt give no verdict. The claim *holds* only where "
        "every clause "
        "does, tested over seeds and test images together, with Holm's correction.\n\n"
        "Each page says by which version of the protocol it was made and what was tried before. "
        "Pages of version 1 "
        "were made before these rules: their verdicts are weaker evidence, as their first lines say.\n\n"
        "    convatlas study list\n"
        "    convatlas study run depthwise\n"
        "    convatlas study run depthwise --preset standard --repeat 1\n"
        "    convatlas study run --all --workers 2\n"
        "    convatlas study report\n\n"
        "The `quick` preset is for the classroom and may well say that there is no evidence at its "
        "budget; what is "
        "to be published is `standard`. Turning a knob makes a pilot, which uses seeds of its own.\n\n"
        "| study | claim | verdict | preset | version | took |\n|---|---|---|---|---|---|\n" + "".join(rows)
    )


def _row(name: str, page: Path) -> str:
    if not page.is_file():
        return f"| {name} | {CLAIMS[name]} | not published | | | |\n"
    text = page.read_text(encoding="utf-8")
    patterns = (
        r"\*\*Claim\.\*\* (.+)",
        rf"# {re.escape(name)}: (.+)",
        r"study run \S+ --preset (\w+)",
        r"It took ([\d,]+ s) in all",
    )
    claim, verdict, preset, took = (_found(pattern, text, page) for pattern in patterns)
    cells = (claim, verdict, preset, str(version_of(text)), took)
    return f"| [{name}]({page.name}) | " + " | ".join(cells) + " |\n"


def _found(pattern: str, text: str, page: Path) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"{page}: no line like {pattern!r}; publish it again")
    return match[1].replace("|", "\\|")


if __name__ == "__main__":
    main()
