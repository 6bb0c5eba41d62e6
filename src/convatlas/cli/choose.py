"""`convatlas choose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convatlas.cli.table_format import TABLE, TableFormat, render
from convatlas.escape import plain

if TYPE_CHECKING:
    from convatlas.choosing.choose import Limits
    from convatlas.cli.table_format import Form


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
    data: str | None = None,
    data_dir: Path | None = None,
    minutes: float = 5.0,
    seed: int = 0,
    download: Annotated[bool, Parameter(negative="")] = False,
    output: TableFormat = TABLE,
) -> None:
    """Say which network to take, for your images or by published accuracy, the most accurate first.

    With --data, every network that fits, and whose weights are here, is tried on the images by
    cross-validation, beside simple baselines, and the best are fine-tuned shortly; the command that trains
    the winner comes last. Without, accuracy is what was published for ImageNet, as the table says where.
    Latency is what `convatlas bench` measured here, else it is measured now, of the networks that pass all
    other limits.

    Args:
        networks: Names, or patterns such as "resnet*"; all where none is given. With --data, folders of runs
            too.
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
        data: Your images: folder:PATH, or another data set that `convatlas train` takes.
        data_dir: Where small data sets lie, or are downloaded to.
        minutes: With --data, how long it may take.
        seed: With --data, seed of folds and trainings.
        download: With --data, fetch published weights that are not here from the hub.
        output: Format of the table; json also has what fell out, and why. With --data, json is a list of the
            candidates, the best first.
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
    if data is not None:
        _choose_by_data(
            networks,
            limits,
            form,
            data,
            data_dir,
            minutes=minutes,
            engine=engine,
            threads=threads,
            seed=seed,
            download=download,
        )
        return
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


def _choose_by_data(
    networks: tuple[str, ...], limits: Limits, form: Form, data: str, data_dir: Path | None, **options: Any
) -> None:
    from convatlas.choosing.by_data import choose_by_data

    found = choose_by_data(data, networks or "*", limits, data_dir=data_dir, say=_tell, **options)
    records = found.record()
    print(
        render(form, found.grid(), records=records, everything=records, title="networks for the images"),
        end="",
    )
    if form == "table":
        for line in found.summary().splitlines():
            print(plain(line))


def _tell(text: str) -> None:
    import sys

    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _say(name: str, number: int, count: int) -> None:
    """What takes time, where somebody watches."""
    import sys

    if sys.stderr.isatty():
        print(f"measuring {name}, {number} of {count}", file=sys.stderr)
