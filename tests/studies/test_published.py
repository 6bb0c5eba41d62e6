"""The published pages, and the table of them: in step with the studies."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from convatlas.studies.index import CLAIMS
from convatlas.studies.study import find_study

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs" / "studies").glob("*.md") if path.name != "README.md")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish_study", ROOT / "scripts" / "publish_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_pages_say(script: ModuleType) -> None:
    docs = ROOT / "docs" / "studies"
    assert (docs / "README.md").read_text() == script.table_page(docs), "run scripts/publish_study.py"


def test_the_table_reads_claim_verdict_preset_and_time(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "depthwise.md").write_text(
        "# depthwise: does not hold\n\n**Claim.** Less | more.\n\n"
        "    convatlas study run depthwise --preset standard\n\nIt took 1,234 s in all, on this.\n"
    )
    page = script.table_page(tmp_path)
    row = "| [depthwise](depthwise.md) | Less \\| more. | does not hold | standard | 1 | 1,234 s |"
    assert row in page.splitlines()
    assert f"| degradation | {CLAIMS['degradation']} | not published | | | |" in page.splitlines()


def test_a_page_without_a_verdict_is_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "depthwise.md").write_text("# something else\n")
    with pytest.raises(ValueError, match=r"depthwise.md: no line like .*; publish it again"):
        script.table_page(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_states_the_claim_as_it_is_now_and_its_images_are_there(page: Path) -> None:
    text = page.read_text()
    made_now = f"Protocol version {find_study(page.stem).version}" in text
    assert f"**Claim.** {CLAIMS[page.stem]}\n" in text or not made_now
    images = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert images
    assert all((page.parent / name).is_file() for name in images)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_first_lines_say_what_was_tried_before(script: ModuleType, page: Path) -> None:
    entry = tomllib.loads((page.parent / "tried.toml").read_text())[page.stem]
    text = page.read_text()
    head = "\n".join(text.splitlines()[:6])
    assert "version 1 of this study" in head.lower()
    assert all(tried in head for tried in entry["tried"])
    if "verdict" in entry and "Made by version 1" in head:
        assert text.startswith(f"# {page.stem}: {entry['verdict']}\n")
    assert script.with_tried(text, entry) == text
