"""`convatlas eval`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from convatlas.cli.table_format import TABLE, TableFormat, render
from convatlas.escape import plain
from convatlas.tables import Grid

if TYPE_CHECKING:
    from convatlas.evaluation.evaluate import Report
    from convatlas.metrics.calibration import ClassMetrics

# Classes that are shown on the terminal; a report has all.
SHOWN = 5


def eval_command(
    network: str,
    /,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    protocol: Literal["single", "10crop", "144crop", "dense", "multiscale"] = "single",
    scales: str | None = None,
    flip: Annotated[bool, Parameter(negative="")] = False,
    ensemble: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    average: Literal["probabilities", "logits"] = "probabilities",
    weights: str = "final",
    split: Literal["test", "train", "all"] = "test",
    match: Literal["names", "index"] = "names",
    engine: Literal["eager", "auto"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] = "fp32",
    batch_size: int = 32,
    workers: int | None = None,
    device: str | None = None,
    output: TableFormat = TABLE,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> int:
    """Measure a network on labelled images, by the protocol of its paper.

    An image that cannot be used is left out and listed, and the exit code is 2.

    Args:
        network: Run folder, network with published weights, such as efficientnet_lite0, or file of weights.
        data: digits, fashion-mnist, mnist, cifar10, cifar100, folder:PATH, imagenet:PATH or shards:PATH; what
            the run was trained on where not given.
        data_dir: Where small data sets lie, or are downloaded to.
        protocol: single (the middle), 10crop (AlexNet, ResNet), 144crop (GoogLeNet), dense (VGG: the whole
            image) or multiscale (dense at several scales).
        scales: Px of the image's short side, such as 256, or 224,256,288 for several scales.
        flip: Show mirror images, too; 10crop and 144crop do so anyway.
        ensemble: More networks, which answer together with the first.
        average: What is averaged over views and networks.
        weights: Of a run: final, ema, raw, snapshots (the mean of all checkpoints), snapshots:N or step:N.
        split: Split of the data; all for a folder of images that nothing was trained on.
        match: Bring classes of data and network together by their names, or by their index.
        engine: eager, or auto for the fastest engine on this machine. If not given, auto where that is the
            sooner answer: for many images, and where less precision is allowed.
        precision: Of the engine that auto finds.
        batch_size: Views that go through a network together.
        workers: Threads that read images; one for each core if not given.
        device: cpu or cuda; a GPU where there is one.
        output: Format of the table of classes; json has all figures.
        out: Folder for a report: figures, tables, confusion matrix, reliability diagram, hardest images.
    """
    from convatlas.evaluation.evaluate import evaluate
    from convatlas.evaluation.report import summary, write_evaluation

    form = output.chosen()
    report = evaluate(
        (network, *ensemble),
        data,
        protocol=protocol,
        scales=None if scales is None else read_scales(scales),
        flip=flip,
        average=average,
        weights=weights,
        split=split,
        match=match,
        data_dir=data_dir,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        device=device,
    )
    if out is not None:
        write_evaluation(report, out)
    if form != "table":
        records = [entry.record() for entry in report.classes]
        grid, title = _class_grid(report.classes), f"{' and '.join(report.networks)} on {report.data}"
        print(render(form, grid, records=records, everything=report.record(), title=title), end="")
    else:
        print(summary(report))
        _print_worst(report)
        if out is not None:
            print(f"\neverything is in {out}: open report.md there")
    return _tell_skipped(report)


def read_scales(text: str) -> tuple[int, ...]:
    """The numbers of "224,256,288".

    Raises:
        ValueError: if one is not a number.
    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"`--scales`={text!r}; expected px, such as 256 or 224,256,288") from None


def _print_worst(report: Report) -> None:
    missed = [entry for entry in report.classes if entry.right < entry.images]
    if not missed:
        return
    worst = sorted(missed, key=lambda entry: entry.right / entry.images)[:SHOWN]
    print(f"\n{render('table', _class_grid(worst, 'worst classes'), records=())}", end="")


def _class_grid(classes: Sequence[ClassMetrics], title: str = "class") -> Grid:
    """Recall and precision of each class, a row each."""
    rows = [
        (
            entry.name,
            f"{entry.images:,}",
            "-" if not entry.images else f"{entry.right / entry.images:.1%}",
            "-" if entry.precision is None else f"{entry.precision:.1%}",
            entry.confused_with or "-",
        )
        for entry in classes
    ]
    columns = (title, "images", "recall", "precision", "most confused with")
    return Grid(columns, 1, rows, (), [], tail=1, ruled=False, lesser=("precision", "images"))


def _tell_skipped(report: Report) -> int:
    for entry in report.skipped:
        print(f"convatlas: left out {plain(entry.path)}: {plain(entry.reason)}", file=sys.stderr)
    return 2 if report.skipped else 0
