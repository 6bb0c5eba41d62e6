"""`convatlas size`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convatlas.cli.model_option import ModelOption, read_model
from convatlas.cli.table_format import TABLE, Form, TableFormat, render

if TYPE_CHECKING:
    from convatlas.cli.subject import Subject
    from convatlas.sizing import Sheet

Flag = Parameter(negative="")


def size_command(
    *networks: str,
    model: ModelOption = (),
    input: Annotated[str | None, Parameter(name="--input")] = None,
    batch_size: int = 1,
    dtype: str = "float32",
    optimizer: str = "momentum",
    layers: Annotated[bool, Flag] = False,
    formulas: Annotated[bool, Flag] = False,
    diff: Annotated[bool, Flag] = False,
    output: TableFormat = TABLE,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Say how large a network is: shapes, parameters, MACs, memory, receptive field, without running it.

    Args:
        networks: A name (`convatlas list`); or MODULE:FUNCTION of Python that makes any network, such as
            mypackage.mymodule:make_net; or a model file (.toml); or an expression such as "conv
            96 11x11 /4, relu, pool 3x3 /2".
        model: Change a field of the network's config, such as width_mult=0.5; or a model file.
        input: Height and width in px, or C,H,W; a named network's published size where not given.
        batch_size: Images at a time.
        dtype: float32, float16, bfloat16 or float64 (also fp32, fp16, bf16, fp64).
        optimizer: For training memory: sgd, momentum, rmsprop, adam or adamw.
        layers: A line per operation rather than per stage.
        formulas: Each operation with its arithmetic; what an expression shows anyway.
        diff: Two networks or more, side by side.
        output: Format of the table; json and html have every operation, too.
        out: Write to this file.
    """
    form = output.chosen()
    if not networks and model:
        networks = (read_model(None, model).network,)
    if not networks:
        raise ValueError('name a network, MODULE:FUNCTION or an expression such as "conv 96 11x11 /4"')
    if len(networks) > 1 and not diff:
        raise ValueError(f"{len(networks)} networks are given; expected one, or --diff to compare them")
    if diff and len(networks) < 2:
        raise ValueError("--diff is given with one network; expected at least two")
    from convatlas.cli.subject import find_subject

    subjects = [find_subject(network, input, model) for network in networks]
    sheets = [_size(subject, batch_size, dtype, optimizer) for subject in subjects]
    if diff:
        text = _compared(sheets, form, to_file=out is not None)
    else:
        details = layers, formulas or (subjects[0].is_expression and not layers)
        text = _rendered(sheets[0], form, *details, to_file=out is not None)
    if out is None:
        print(text, end="")
    else:
        from convatlas.files import write_atomic

        write_atomic(out, text)


def _size(subject: Subject, batch_size: int, dtype: str, optimizer: str) -> Sheet:
    from convatlas.cli.subject import read_dtype
    from convatlas.sizing import size

    return size(
        subject.net, subject.input_size, batch_size=batch_size, dtype=read_dtype(dtype), optimizer=optimizer
    )


def _rendered(sheet: Sheet, form: Form, layers: bool, formulas: bool, to_file: bool) -> str:
    from convatlas.sizing import render as sheets

    if form == "table":
        from convatlas.cli.terminal import terminal

        width, color = terminal(to_file)
        return sheets.to_text(
            sheet, layers=layers, formulas=formulas, seconds=_seconds(sheet), width=width, color=color
        )
    if form == "json":
        return sheets.to_json(sheet, _seconds(sheet))
    if form == "html":
        return sheets.to_html(sheet)
    write = {"csv": sheets.to_csv, "md": sheets.to_markdown, "latex": sheets.to_latex}[form]
    return write(sheet, layers=layers or formulas)


def _compared(sheets: list[Sheet], form: Form, to_file: bool) -> str:
    from convatlas.sizing import compare

    if form == "json":
        return compare.compare_json(sheets)
    grid = compare.compare(sheets)
    records = [dict(zip(grid.columns, row, strict=True)) for row in grid.rows]
    return render(form, grid, records=records, title=" and ".join(grid.columns[1:-1]), to_file=to_file)


def _seconds(sheet: Sheet) -> float | None:
    """The estimate, where this machine was measured with this dtype."""
    from convatlas.sizing.roofline import estimate, find_profile

    profile = find_profile()
    name = str(sheet.dtype).removeprefix("torch.")
    return None if profile is None or name not in profile.rates else estimate(sheet, profile)
