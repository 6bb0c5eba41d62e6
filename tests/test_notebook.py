"""A notebook that a user would write: results show themselves as tables, and progress by itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

CELLS = (
    "import convatlas",
    'run = convatlas.train("lenet5", data="digits", epochs=1, device="cpu")\nrun',
    'convatlas.size(convatlas.create_model("lenet5"), 32)',
    'convatlas.find_card("lenet5")',
    "convatlas.evaluate(run.folder)",
    "convatlas.load(run.folder)",
    'quiet = convatlas.train("lenet5", data="digits", epochs=1, device="cpu", progress=False)',
    'convatlas.draw(convatlas.create_model("lenet5"), 32)',
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The notebook's cells, run in a kernel of their own."""
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    source = str(Path(convatlas_home()).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        client = nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}})
        client.execute()
    return book.cells


def convatlas_home() -> str:
    import convatlas

    return str(Path(convatlas.__file__).parent)


def shown(cell: Any, kind: str) -> str:
    return "".join(str(output.data[kind]) for output in cell.outputs if kind in output.get("data", {}))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_results_are_tables_without_scripts_and_short_texts(cells: list[Any], number: int) -> None:
    (result,) = [output for output in cells[number].outputs if output.output_type == "execute_result"]
    page = result.data["text/html"]
    assert "<table" in page
    assert not re.search(r"<script|javascript:|\son\w+=", page, re.IGNORECASE)
    assert len(result.data["text/plain"].splitlines()) <= 5


def test_a_figure_shows_itself(cells: list[Any]) -> None:
    assert "<svg" in shown(cells[7], "image/svg+xml") + shown(cells[7], "text/html")


def test_a_training_shows_its_progress_unless_it_is_told_not_to(cells: list[Any]) -> None:
    told = shown(cells[1], "text/plain") + "".join(output.get("text", "") for output in cells[1].outputs)
    assert "epoch 1/1" in told
    assert not cells[6].outputs
