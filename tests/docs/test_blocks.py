"""Every code block of the README and the docs runs, or says why it does not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import convatlas
from doc_blocks import LANGUAGES, PAGES, ROOT, Block, read_blocks, run_block
from doc_world import given_names, make_world, small_data


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: images, a film, two runs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("world")
        small_data(patch, folder / "cache")
        make_world(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_block_of_a_page(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = read_blocks(page)
    if not any(block.kept != "not run" for block in blocks):
        return
    here = tmp_path / "here"
    shutil.copytree(world, here, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(here)
    small_data(monkeypatch, here / "cache")
    names: dict[str, Any] = {"__name__": page.stem, **given_names()}
    for block in blocks:
        try:
            run_block(block, names, monkeypatch)
        except Exception as error:
            error.add_note(f"in {block.place}")
            raise


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_blocks_say_their_language_and_why_they_are_not_run(page: Path) -> None:
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    indented = re.search(r"^\n {4}\S.*$", outside, re.MULTILINE)
    assert indented is None, f"{page.name}: {indented and indented[0]!r} is a block without a fence"
    for block in read_blocks(page):
        assert block.language in LANGUAGES, block.place
        assert not block.kept or len(block.reason.split()) > 1, block.place


@pytest.mark.parametrize("name", convatlas.__all__)
def test_the_reference_has_every_public_name(name: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    assert re.search(rf"^::: convatlas\.{name}(\.\w+)?$", pages, re.MULTILINE) or name == "__version__"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_page_is_on_the_site(page: Path) -> None:
    name = str(page.relative_to(ROOT / "docs"))
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    is_study = name.startswith(("networks/", "studies/")) and page.name != "README.md"
    assert is_study or re.search(rf"[ :-] {re.escape(name)}$", site, re.MULTILINE)


def test_what_a_block_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n<!-- not run: it takes days -->\n```sh\nsleep\n```\n\n```python\nx = 1\n```\n")
    assert read_blocks(page) == [
        Block(page, 5, "sh", "sleep\n", "not run", "it takes days"),
        Block(page, 9, "python", "x = 1\n"),
    ]
