"""What a network says about an image, and how it is written: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from convatlas.summary import Summary

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction(Summary):
    """What a network says about an image.

    Attributes:
        image: the file, as it was named; a number for an image that is no file.
        top: the most likely classes with their probabilities, the most likely first.
        frame: of a film, counted from 0; None for an image.
        seconds: where in the film it is shown; None for an image.
        classes: those that hold the right one with the probability that was asked for, the most likely first;
            None where that was not asked for.
        unknown: whether the image is of none of the classes; None where that was not asked for.
    """

    image: str
    top: tuple[tuple[str, float], ...]
    frame: int | None = None
    seconds: float | None = None
    classes: tuple[str, ...] | None = None
    unknown: bool | None = None

    def _title(self) -> str:
        at = "" if self.seconds is None else f" at {self.seconds:.2f} s"
        return f"Prediction for {self.image}{at}"

    def _facts(self) -> dict[str, object]:
        return {name: f"{share:.1%}" for name, share in self.top}

    @property
    def label(self) -> str:
        """The most likely class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Of the most likely class, in [0, 1]."""
        return self.top[0][1]

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        top = [{"class": name, "probability": round(share, 6)} for name, share in self.top]
        more = {} if self.classes is None else {"classes": list(self.classes)}
        refused = {} if self.unknown is None else {"unknown": self.unknown}
        return _place(self) | {"top": top} | more | refused


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Why there is no prediction for an image.

    Attributes:
        image: the file, as it was named; a number for an image that is no file.
        reason: one line that names it.
        frame: of a film, counted from 0; None for an image.
        seconds: where in the film it is shown; None for an image.
    """

    image: str
    reason: str
    frame: int | None = None
    seconds: float | None = None

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return _place(self) | {"error": self.reason}


def _place(results: Prediction | Skipped) -> dict[str, Any]:
    place: dict[str, Any] = {"image": str(results.image)}
    if results.frame is not None:
        place |= {
            "frame": results.frame,
            "seconds": None if results.seconds is None else round(results.seconds, 3),
        }
    return place


def format_of(path: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        ValueError: none of those that there are.
    """
    found = path.suffix.lower().removeprefix(".")
    for name in FORMATS:
        if found == name:
            return name
    endings = ", ".join(f".{name}" for name in FORMATS)
    raise ValueError(f"`out`={str(path)!r}; expected a name that ends in one of {endings}")


def encode(results: Sequence[Prediction | Skipped], form: Format, top: int) -> bytes:
    """Writes predictions in a format.

    Args:
        results: in order.
        form: CSV and Parquet have one row each, with columns `image`, `frame`, `seconds`, `class_1`,
            `probability_1`, ... and `error`.
        top: number of classes in a row.

    Raises:
        ValueError: Parquet, and the package that writes it is not installed.
    """
    if form == "jsonl":
        return "".join(json.dumps(entry.record()) + "\n" for entry in results).encode()
    rows = [_row(entry, top) for entry in results]
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_columns(top))
        writer.writerows([_cell(row[0], "./"), *(_cell(value, "'") for value in row[1:])] for row in rows)
        return text.getvalue().encode()
    arrow, parquet = require_parquet()
    table = arrow.Table.from_pylist(
        [dict(zip(_columns(top), row, strict=True)) for row in rows], schema=_schema(arrow, top)
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def join(parts: Sequence[Path], form: Format, file: Any) -> None:
    """Joins files that `encode` wrote into one.

    Args:
        parts: in order.
        form: of all.
        file: takes the bytes.
    """
    if form == "parquet":
        _, parquet = require_parquet()
        with parquet.ParquetWriter(file, parquet.read_schema(parts[0])) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part))
        return
    for number, part in enumerate(parts):
        content = part.read_bytes()
        file.write(content if form == "jsonl" or number == 0 else content.partition(b"\n")[2])


def require_parquet() -> tuple[Any, Any]:
    """The package pyarrow and its module for Parquet.

    Raises:
        ValueError: not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "Parquet is written by pyarrow: pip install pyarrow, or '.[parquet]' in a checkout"
        ) from None
    return pyarrow, pyarrow.parquet


def _columns(top: int) -> list[str]:
    ranks = [f"{what}_{rank}" for rank in range(1, top + 1) for what in ("class", "probability")]
    return ["image", "frame", "seconds", *ranks, "error"]


def _row(results: Prediction | Skipped, top: int) -> list[Any]:
    given = results.top if isinstance(results, Prediction) else ()
    ranks: list[Any] = [value for pair in given for value in (pair[0], round(pair[1], 6))]
    ranks += [None] * (2 * top - len(ranks))
    error = results.reason if isinstance(results, Skipped) else None
    return [
        _valid(results.image),
        results.frame,
        results.seconds,
        *ranks,
        None if error is None else _valid(error),
    ]


def _valid(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _cell(value: Any, guard: str) -> Any:
    # A spreadsheet runs what begins so. The name of a file means the same with "./" before it.
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"{guard}{value}" if risky else value


def _schema(arrow: Any, top: int) -> Any:
    kinds = {"image": arrow.string(), "frame": arrow.int64(), "seconds": arrow.float64()}
    for rank in range(1, top + 1):
        kinds |= {f"class_{rank}": arrow.string(), f"probability_{rank}": arrow.float64()}
    return arrow.schema(list((kinds | {"error": arrow.string()}).items()))
