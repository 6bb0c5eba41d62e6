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


def with_tried(page: str, entry: dict[str, Any]) -> str:
    """A page whose first lines say which budgets were tried before, and what the numbers support.

    Args:
        page: as the study wrote it, or as this function returned it.
        entry: of `docs/studies/tried.toml`.
    """
    title, _, rest = page.partition("\n")
    rest = re.sub(r"\A\n(?:>.*\n)+", "", rest)
    name, _, found = title.removeprefix("# ").partition(": ")
    verdict = entry.get("verdict", found)
    tried = entry.get("tried", [])
    lines = [
        "Budgets that were published before this one: "
        + ("; ".join(tried) + "." if tried else "none.")
        + " Pilots were not kept, so settings that were tried without being published are not known.",
    ]
    if "note" in entry:
        lines.append(entry["note"])
    if "verdict" in entry:
        lines.append(
            "The verdict above is what the numbers support; "
            "the program's own rules will be mended with the next version of this study."
        )
    said = "".join(f"> {line}\n" for line in lines)
    return f"# {name}: {verdict}\n\n{said}{rest}"


def table_page(docs: Path) -> str:
    """The table of all studies in the order of the course, read from the pages that are published."""
    rows = [_row(name, docs / f"{name}.md") for name in CLAIMS]
    return (
        "# Studies\n\n"
        "Each claim of the papers is a program that measures it and gives a verdict: it *holds* only where "
        "the "
        "whole 95 % interval of each effect lies on the side that the claim says. What stands here are runs "
        "the smallest preset on one machine; each page says what was done, what was tried before, and how to "
        "repeat it.\n\n"
        "it.\n\n"
        "    convatlas study list\n"
        "    convatlas study run depthwise\n"
        "    convatlas study run depthwise --preset standard --seeds 5\n"
        "    convatlas study report\n\n"
        "| study | claim | verdict | preset | took |\n|---|---|---|---|---|\n" + "".join(rows)
    )


def _row(name: str, page: Path) -> str:
    if not page.is_file():
        return f"| {name} | {CLAIMS[name]} | not published | | |\n"
    text = page.read_text(encoding="utf-8")
    cells = [
        _found(pattern, text, page)
        for pattern in (
            r"\*\*Claim\.\*\* (.+)",
            rf"# {re.escape(name)}: (.+)",
            r"study run \S+ --preset (\w+)",
            r"It took ([\d,]+ s) in all",
        )
    ]
    return f"| [{name}]({page.name}) | " + " | ".join(cells) + " |\n"


def _found(pattern: str, text: str, page: Path) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"{page}: no line like {pattern!r}; publish it again")
    return match[1].replace("|", "\\|")


if __name__ == "__main__":
    main()
