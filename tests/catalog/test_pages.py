"""The docs' pages on networks: current, complete, and true to the cards."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from convatlas.catalog.cards import list_models
from convatlas.catalog.families import FAMILIES, cards_of
from convatlas.catalog.figures import FIGURES, all_figures
from convatlas.catalog.pages import family_page, gallery_page

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "networks"
RUN = "run scripts/make_pages.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "scripts" / "make_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_pages_are_current(family) -> None:
    assert (FOLDER / f"{family.name}.md").read_text(encoding="utf-8") == family_page(family), RUN


def test_the_gallery_is_current_and_shows_every_figure() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == gallery_page(), RUN
    shown = re.findall(r"\(figures/([^)]+)\)", page)
    assert sorted(shown) == sorted(path.name for path in (FOLDER / "figures").iterdir())
    assert len(set(shown)) == len(shown) == len(all_figures())


@pytest.mark.parametrize("figure", all_figures(), ids=lambda figure: figure.file)
def test_figures_are_current(figure, script: ModuleType, tmp_path: Path) -> None:
    script.draw(figure, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_bytes()
    assert (FOLDER / "figures" / f"{figure.file}.svg").read_bytes() == drawn, RUN
    # Two grids of some 2,000 numbers take more.
    assert len(drawn) < (300_000 if figure.file == "padding" else 100_000)


def test_every_network_stands_on_one_page() -> None:
    names = [card.name for family in FAMILIES for card in cards_of(family)]
    assert sorted(names) == sorted(list_models())
    assert set(FIGURES) == {family.name for family in FAMILIES}
    pages = "".join((FOLDER / f"{family.name}.md").read_text(encoding="utf-8") for family in FAMILIES)
    assert all(pages.count(f"\n| `{name}` |") == 1 for name in names)


def test_a_page_has_the_papers_numbers() -> None:
    page = (FOLDER / "resnet.md").read_text(encoding="utf-8")
    # He et al. 2016: 25,557,032 parameters by every library; Table 4 printed 20.74 % error for one crop.
    (row,) = (line for line in page.splitlines() if line.startswith("| `resnet50_v1` |"))
    assert "| 50 | 25,557,032 |" in row and "3×224×224" in row
    assert "Deep Residual Learning for Image Recognition" in page and "arXiv:1512.03385" in page
    assert "[VGG](vgg.md)" in page


def test_links_lead_to_files() -> None:
    for path in FOLDER.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (FOLDER / link).exists(), f"{path.name}: {link}"
