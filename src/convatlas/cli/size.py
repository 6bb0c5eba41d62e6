"""`convatlas size`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convatlas.cli.model_option import ModelOption, read_model

if TYPE_CHECKING:
    from convatlas.cli.subject import Subject
    from convatlas.sizing import Sheet

FORMATS = ("json", "csv", "md", "latex", "html")
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
    json: Annotated[bool, Flag] = False,
    csv: Annotated[bool, Flag] = False,
    md: Annotated[bool, Flag] = False,
    latex: Annotated[bool, Flag] = False,
    html: Annotated[bool, Flag] = False,
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
        json: Everything, for machines.
        csv: The table, exact numbers in bytes.
        md: The table in Markdown.
        latex: The table in LaTeX, for the package booktabs.
        html: The table and every operation, as HTML.
        out: Write to this file.
    """
    chosen = [name for name, on in zip(FORMATS, (json, csv, md, latex, html), strict=True) if on]
    if len(chosen) > 1:
        raise ValueError(f"--{chosen[0]} and --{chosen[1]} are both given; expected one of them")
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
    form = chosen[0] if chosen else "text"
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


def _rendered(sheet: Sheet, form: str, layers: bool, formulas: bool, to_file: bool) -> str:
    from convatlas.sizing import render

    if form == "text":
        from convatlas.cli.terminal import terminal

        width, color = terminal(to_file)
        return render.to_text(
            sheet, layers=layers, formulas=formulas, seconds=_seconds(sheet), width=width, color=color
        )
    if form == "json":
        return render.to_json(sheet, _seconds(sheet))
    if form == "html":
        return render.to_html(sheet)
    write = {"csv": render.to_csv, "md": render.to_markdown, "latex": render.to_latex}[form]
    return write(sheet, layers=layers or formulas)


def _compared(sheets: list[Sheet], form: str, to_file: bool) -> str:
    from convatlas import tables
    from convatlas.sizing import compare

    if form == "json":
        return compare.compare_json(sheets)
    table = compare.compare(sheets)
    if form == "text":
        from convatlas.cli.terminal import terminal

        width, color = terminal(to_file)
        return tables.grid_text(table, width=width, color=color)
    if form == "latex":
        return tables.grid_latex(table, " and ".join(table.columns[1:-1]))
    write = {"csv": tables.grid_csv, "md": tables.grid_markdown, "html": tables.grid_html}[form]
    return write(table)


def _seconds(sheet: Sheet) -> float | None:
    """The estimate, where this machine was measured with this dtype."""
    from convatlas.sizing.roofline import estimate, find_profile

    profile = find_profile()
    name = str(sheet.dtype).removeprefix("torch.")
    return None if profile is None or name not in profile.rates else estimate(sheet, profile)
