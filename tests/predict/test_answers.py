import csv
import io
import json
import sys
from pathlib import Path

import pytest

from convatlas.escape import plain
from convatlas.predict.outputs import Format, Prediction, Skipped, encode, format_of, join

SAID = [
    Prediction("a.png", (("7", 0.75), ("1", 0.25))),
    Skipped("b, c.png", "b, c.png: no such file"),
    Prediction("film.mp4", (("1", 0.5), ("7", 0.4)), 25, 1.0004),
]
ROWS = [
    {"image": "a.png", "class_1": "7", "probability_1": 0.75, "class_2": "1", "probability_2": 0.25},
    {"image": "b, c.png", "error": "b, c.png: no such file"},
    {"image": "film.mp4", "frame": 25, "seconds": 1.0004, "class_1": "1", "probability_1": 0.5,
     "class_2": "7", "probability_2": 0.4},
]  # fmt: skip


def test_json_lines() -> None:
    found = [json.loads(line) for line in encode(SAID, "jsonl", 2).decode().splitlines()]
    assert found == [
        {
            "image": "a.png",
            "top": [{"class": "7", "probability": 0.75}, {"class": "1", "probability": 0.25}],
        },
        {"image": "b, c.png", "error": "b, c.png: no such file"},
        {
            "image": "film.mp4",
            "frame": 25,
            "seconds": 1.0,
            "top": [{"class": "1", "probability": 0.5}, {"class": "7", "probability": 0.4}],
        },
    ]


def test_csv() -> None:
    found = list(csv.DictReader(io.StringIO(encode(SAID, "csv", 2).decode())))
    assert found == [{key: str(row.get(key, "")) for key in found[0]} for row in ROWS]
    assert list(found[0]) == [
        "image",
        "frame",
        "seconds",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
        "error",
    ]


def test_parquet() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(encode(SAID, "parquet", 2)))
    assert table.to_pylist() == [{key: row.get(key) for key in table.column_names} for row in ROWS]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_parts_are_joined(tmp_path: Path, form: Format) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    paths = [tmp_path / "1", tmp_path / "2"]
    paths[0].write_bytes(encode(SAID[:2], form, 2))
    paths[1].write_bytes(encode(SAID[2:], form, 2))
    file = io.BytesIO()
    join(paths, form, file)
    if form == "parquet":
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(io.BytesIO(file.getvalue()))
        assert found.equals(pyarrow.parquet.read_table(io.BytesIO(encode(SAID, form, 2))))
    else:
        assert file.getvalue() == encode(SAID, form, 2)


def test_a_spreadsheet_gets_no_formulas() -> None:
    results = [Prediction("=1+1.png", (("@SUM(A1)", 1.0),)), Prediction("-x.png", (("cat", 1.0),))]
    rows = list(csv.DictReader(io.StringIO(encode(results, "csv", 1).decode())))
    assert [(row["image"], row["class_1"]) for row in rows] == [
        ("./=1+1.png", "'@SUM(A1)"),
        ("./-x.png", "cat"),
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_names_that_are_no_text(form: Format) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    content = encode([Skipped(name, f"{name}: no")], form, 1)
    assert (b"caf\\udce9.png" if form == "jsonl" else b"caf\\xe9.png") in content
    assert plain(name) == "caf\\udce9.png"


def test_a_terminal_gets_no_control_characters() -> None:
    assert plain("a\x1b[31m\nb é 猫.png") == "a\\x1b[31m\\nb é 猫.png"


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.jsonl", "jsonl"), ("a.CSV", "csv"), ("b.c.parquet", "parquet")],
    ids=["jsonl", "csv", "parquet"],
)
def test_the_name_says_the_format(name: str, form: str) -> None:
    assert format_of(Path(name)) == form


def test_a_name_that_says_no_format() -> None:
    with pytest.raises(ValueError, match=r"`out`='a.txt'; expected a name that ends in one of \.jsonl"):
        format_of(Path("a.txt"))


def test_parquet_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        encode(SAID, "parquet", 2)
