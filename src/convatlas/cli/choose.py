"""`convatlas choose`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from convatlas.cli.table_format import TABLE, TableFormat, render


def choose_command(
    *networks: str,
    max_latency: str | None = None,
    max_params: str | None = None,
    max_macs: str | None = None,
    min_top1: Annotated[float | None, Parameter(name="--min-top1")] = None,
    batch_size: int = 1,
    engine: str | None = None,
    threads: int | None = None,
    measure: Annotated[bool, Parameter(negative="")] = False,
    output: TableFormat = TABLE,
) -> None:
    """Say which network to take: those that fit the limits, the most accurate first.

    Accuracy is what was published for ImageNet. Latency is what `convatlas bench` measured here, else it is
    measured now, of the networks that pass all other limits.

    Args:
        networks: Names, or patterns such as "resnet*"; all where none is given.
        max_latency: Most time for a batch, for example 10ms or 0.01s.
        max_params: Most parameters, for example 10M.
        max_macs: Most multiply-adds for one image, for example 1.5G.
        min_top1: Lowest published top-1 accuracy, per cent.
        batch_size: Images at a time.
        engine: That latencies are for: eager, torch, onnxruntime, openvino, ncnn, mnn, executorch, native or
            torch-compiled; or auto for the fastest. If not given, eager, or the fastest where that is
            remembered, or needed to fit.
        threads: That work on a batch; torch's own choice where not given.
        measure: Measure now, even without --max-latency, and what was measured before.
        output: Format of the table; json also has what fell out, and why.
    """
    from convatlas.catalog.index import parse_amount
    from convatlas.choosing.choose import Limits, choose, parse_time

    form = output.chosen()
    limits = Limits(
        max_latency=None if max_latency is None else parse_time("max-latency", max_latency),
        max_params=None if max_params is None else parse_amount("max-params", max_params),
        max_macs=None if max_macs is None else parse_amount("max-macs", max_macs),
        min_top1=min_top1,
    )
    selection = choose(
        networks or "*",
        limits,
        batch_size=batch_size,
        engine=engine,
        threads=threads,
        measure=measure,
        progress=_say,
    )
    if selection.candidates or form != "table":
        records, everything = selection.candidate_records(), selection.record()
        print(
            render(form, selection.grid(), records=records, everything=everything, title="networks that fit"),
            end="",
        )
    if form == "table":
        print(selection.summary(), end="")


def _say(name: str, number: int, count: int) -> None:
    """What takes time, where somebody watches."""
    import sys

    if sys.stderr.isatty():
        print(f"measuring {name}, {number} of {count}", file=sys.stderr)
