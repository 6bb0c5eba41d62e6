"""`convatlas scale`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convatlas.cli.model_option import ModelOption, read_changes
from convatlas.cli.table_format import TABLE, TableFormat

if TYPE_CHECKING:
    from convatlas.scaling import Plan


def scale_command(
    network: str,
    /,
    *,
    macs: str | None = None,
    params: str | None = None,
    memory: str | None = None,
    latency: str | None = None,
    rule: str | None = None,
    engine: str = "auto",
    batch_size: int = 1,
    threads: int | None = None,
    input: Annotated[str | None, Parameter(name="--input")] = None,
    factors: str | None = None,
    model: ModelOption = (),
    data: str | None = None,
    epochs: int = 5,
    seeds: int = 1,
    runs: Path = Path("runs"),
    output: TableFormat = TABLE,
    figure: Path | None = None,
    theme: str = "light",
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Find the network of a family for a budget: smaller or larger than any printed one, with exact costs.

    Args:
        network: A family, such as efficientnet, mobilenet_v2, resnet or densenet; or a network, such as
            resnet34.
        macs: Most multiply-adds of one image, such as 800M.
        params: Most parameters, such as 10M.
        memory: Most bytes that an inference holds at once, such as 200MB.
        latency: Most time of a batch on this machine, such as 20ms; it is measured.
        rule: compound, printed, fast, resnet-rs, efficientnet-v2, depth, width, resolution or grid; compound
            where not given, or width where depth cannot be turned.
        engine: That latency is for: auto, eager, torch, onnxruntime, openvino, ncnn, mnn, executorch, native
            or torch-compiled.
        batch_size: Images at a time, for latency and memory.
        threads: That work on a batch; torch's own choice where not given.
        input: Smallest and largest input, such as 128..320 px; or one size.
        factors: Of the rule compound, in place of 1.2,1.1,1.15: depth, width and resolution of one step.
        model: Change a field of the network's config, such as num_classes=10.
        data: For --rule grid, the data that the factors are tried on.
        epochs: For --rule grid, passes over the data of each training.
        seeds: For --rule grid, trainings for each choice of factors.
        runs: For --rule grid, folder of the trainings, which go on where they were stopped.
        output: Format of the table, in which the plan that was asked for comes first.
        figure: Draw every rule along phi into this file: .png, .svg or .pdf.
        theme: Of that figure: light, dark or print.
        out: Write the plan to this TOML file, which train, size, bench and export take with --model.
    """
    if out is not None and out.suffix != ".toml":
        raise ValueError(f"`--out {out}`; expected a file that ends in .toml")
    form = output.chosen()
    if rule == "grid" and data is None:
        raise ValueError(
            "`--rule grid` needs --data, on which its factors are tried; expected --data digits, say"
        )
    if data is not None and rule != "grid":
        raise ValueError(
            f"`--data {data}` goes with --rule grid alone; {rule or 'the default rule'} trains nothing"
        )
    from convatlas.cli.scale_text import plans_text
    from convatlas.scaling import compare_rules

    given: dict[str, Any] = {
        "rule": rule,
        "factors": None if factors is None else _read_factors(factors),
        "input_range": None if input is None else _read_range(input),
        "overrides": read_changes(model),
        "batch_size": batch_size,
        "engine": engine,
        "threads": threads,
    }
    amounts = {"macs": macs, "params": params, "memory": memory, "latency": latency}
    if rule == "grid" and data is not None:
        from convatlas.scaling import grid_search

        found = grid_search(
            network, data=data, epochs=epochs, seeds=seeds, out=runs, overrides=given["overrides"], tell=_tell
        )
        given["factors"] = found.factors
    plans = compare_rules(network, **amounts, **given, tell=_tell)
    print(plans_text(plans, form), end="")
    _write(plans, out)
    if figure is not None:
        from convatlas.files import write_atomic
        from convatlas.scaling.figure import draw_rules

        form = figure.suffix.removeprefix(".")
        write_atomic(figure, draw_rules(network, form=form, overrides=given["overrides"], theme=theme))


def _write(plans: list[Plan], out: Path | None) -> None:
    from convatlas.files import write_atomic

    if out is not None:
        write_atomic(out, plans[0].to_toml())


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read_range(text: str) -> tuple[int, int]:
    """Reads MIN..MAX, or one size for both.

    Raises:
        ValueError: it is neither.
    """
    low, dots, high = text.partition("..")
    ends = (low, high if dots else low)
    if not all(end.strip().isdecimal() and end.isascii() and int(end) > 0 for end in ends):
        raise ValueError(f"`--input {text}`; expected MIN..MAX in px, such as 128..320, or one size")
    return int(ends[0]), int(ends[1])


def _read_factors(text: str) -> tuple[float, float, float]:
    """Reads three numbers with commas.

    Raises:
        ValueError: they are not three numbers.
    """
    try:
        alpha, beta, gamma = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"`--factors {text}`; expected three numbers, such as 1.2,1.1,1.15") from None
    return alpha, beta, gamma
