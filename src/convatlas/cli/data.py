"""`convatlas data`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from convatlas.cli.table_format import TABLE, TableFormat, render
from convatlas.escape import plain
from convatlas.tables import Grid

if TYPE_CHECKING:
    from convatlas.data.describe import DataReport

# Lines of each table that a person is shown; --json has all.
SHOWN = 20
SHOWN_COPIES = 4

data_command = App(
    name="data", help="Say what a data set is like, or pack one into shards.", help_format="plaintext"
)


@data_command.default
def report_command(
    source: str,
    /,
    *,
    data_dir: Path | None = None,
    seed: int = 0,
    output: TableFormat = TABLE,
) -> None:
    """Say what a data set is like: classes, counts, sizes, damaged files, duplicates, imbalance.

    Args:
        source: digits, fashion-mnist, mnist, cifar10, cifar100, folder:PATH, imagenet:PATH or shards:PATH.
        data_dir: Folder where a set that is downloaded lies, or is to lie.
        seed: Seed of the split, for a folder without val.
        output: Format of the table of classes; json has the whole report.
    """
    from convatlas.data.describe import describe
    from convatlas.data.sources import load_source

    form = output.chosen()
    report = describe(load_source(source, data_dir=data_dir, seed=seed, on_bad_image="skip", note=_note))
    if form == "table":
        _print(report)
    else:
        records = [{"class": each.name, "train": each.train, "test": each.test} for each in report.classes]
        text = render(
            form,
            _class_grid(report, len(report.classes)),
            records=records,
            everything=report.record(),
            title=report.name,
        )
        print(text, end="")


@data_command.command(name="pack")
def pack_command(
    source: str,
    out: Path,
    /,
    *,
    data_dir: Path | None = None,
    seed: int = 0,
    on_bad_image: Literal["refuse", "skip"] = "refuse",
) -> None:
    """Pack a data set into shards: tar archives in webdataset's layout, with an index.

    Args:
        source: A data set, for example folder:PATH.
        out: Folder for the shards; new or empty.
        data_dir: Folder where a set that is downloaded lies, or is to lie.
        seed: Seed of the split, for a folder without val.
        on_bad_image: refuse or skip images that cannot be read.
    """
    from convatlas.data.pack import write_shards
    from convatlas.data.sets import counted
    from convatlas.data.sources import load_source

    loaded = load_source(source, data_dir=data_dir, seed=seed, on_bad_image=on_bad_image, note=_note)
    shards = write_shards(loaded, out)
    size = sum(shard.stat().st_size for shard in shards)
    left_out = counted(len(loaded.skipped), "image was", "images were")
    skipped = f"; {left_out} left out" if loaded.skipped else ""
    print(
        f"{len(loaded.train):,} images to learn from and {len(loaded.test):,} to test on, "
        f"in {counted(len(shards), 'shard')} of {size / 1e6:,.1f} MB in all{skipped}"
    )
    print(f"use them as shards:{plain(out)}")


def _note(text: str) -> None:
    print(f"convatlas: {plain(text)}", file=sys.stderr)


def _print(report: DataReport) -> None:
    from convatlas.data.sets import counted

    print(f"{plain(report.name)}: {report.train:,} images to learn from, {report.test:,} to test on")
    print(_size_line(report))
    print(f"\n{render('table', _class_grid(report, SHOWN), records=())}", end="")
    _print_rest(len(report.classes), "classes")
    if report.duplicates:
        print(f"\n{counted(len(report.duplicates), 'image is', 'images are')} there more than once:")
        for entry in report.duplicates[:SHOWN]:
            more = len(entry.samples) - SHOWN_COPIES
            copies = [*entry.samples[:SHOWN_COPIES], *([f"{more:,} more"] if more > 0 else [])]
            print(f"  {plain(' = '.join(copies))}  ({plain(' / '.join(entry.labels))})")
        _print_rest(len(report.duplicates), "more")
    if report.skipped:
        print(f"\n{counted(len(report.skipped), 'image')} cannot be used:")
        for entry in report.skipped[:SHOWN]:
            print(f"  {plain(entry.path)}: {plain(entry.reason)}")
        _print_rest(len(report.skipped), "more")
    warnings = report.warnings()
    print(
        "\n" + "\n".join(f"look at this: {plain(line)}" for line in warnings)
        if warnings
        else "\nnothing to mend"
    )


def _class_grid(report: DataReport, count: int) -> Grid:
    """The first classes, and how many images each has in each split."""
    rows = [(entry.name, f"{entry.train:,}", f"{entry.test:,}") for entry in report.classes[:count]]
    return Grid(("class", "train", "test"), 1, rows, (), [], ruled=False, lesser=())


def _print_rest(count: int, what: str) -> None:
    if count > SHOWN:
        print(f"  and {count - SHOWN:,} {what}, which --json lists")


def _size_line(report: DataReport) -> str:
    if report.image_size is not None:
        chans, height, width = report.image_size
        return f"all {width}x{height} px, {'grey' if chans == 1 else 'in colour'}"
    sizes = report.sizes
    return (
        f"from {sizes.least:,} px (short side) to {sizes.most:,} px (long side), median of the short side "
        f"{sizes.median:g} px, at most {sizes.widest:g} times as long as short"
    )
