"""Writes docs/networks: a page for each family of networks, a gallery, and their figures.

./run python scripts/make_pages.py [FIGURE ...]

With names of figures, only those are drawn again.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from convatlas.catalog.families import FAMILIES
from convatlas.catalog.figures import DocFigure, all_figures
from convatlas.catalog.pages import family_page, gallery_page
from convatlas.cli.draw import draw_command
from convatlas.cli.history import history_command
from convatlas.files import write_atomic

FOLDER = Path(__file__).parent.parent / "docs" / "networks"


def draw(figure: DocFigure, path: Path) -> None:
    """Draws a figure by the function behind its command."""
    from cyclopts import App

    app = App(result_action="return_value")
    app.command(draw_command, name="draw")
    app.command(history_command, name="history")
    app([*shlex.split(figure.command), "-o", str(path)], exit_on_error=False)


def main() -> None:
    (FOLDER / "figures").mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        write_atomic(FOLDER / f"{family.name}.md", family_page(family))
    write_atomic(FOLDER / "README.md", gallery_page())
    wanted = set(sys.argv[1:])
    for figure in all_figures():
        if not wanted or figure.file in wanted:
            draw(figure, FOLDER / "figures" / f"{figure.file}.svg")


if __name__ == "__main__":
    main()
