"""An evaluation as files: a page to read with images, and tables for machines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convatlas.data.sets import counted
from convatlas.escape import plain, plain_row
from convatlas.files import write_atomic, write_json
from convatlas.metrics.calibration import Calibration
from convatlas.metrics.error_analysis import find_hardest
from convatlas.metrics.report_sections import (
    CONFUSION,
    HARDEST,
    MOST_HARDEST,
    PAGE,
    error_section,
    hardest_section,
)
from convatlas.plots.reliability import draw_reliability
from convatlas.plots.training import Tile, draw_confusion, draw_tiles

if TYPE_CHECKING:
    from convatlas.evaluation.evaluate import Report

FIGURES, CLASSES, IMAGES = "evaluation.json", "classes.csv", "images.csv"
MATRIX, RELIABILITY = "confusion.csv", "reliability.png"


def write_evaluation(report: Report, folder: Path) -> None:
    """Writes a report into a folder, which is made; files of those names in it are replaced.

    `report.md` with `confusion.png`, `reliability.png` and `hardest.png`; `evaluation.json` with all figures;
    `classes.csv`, `confusion.csv` (counts, a row for each true class) and `images.csv` (each image with
    its class, the prediction, the prediction's probability and the loss).

    Raises:
        ValueError: `folder` is a file.
        OSError: it may not be written, or the disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; a report is a folder")
    folder.mkdir(parents=True, exist_ok=True)
    names, found = report.class_names, report.evaluation
    confusion = found.confusion.numpy()
    write_json(folder / FIGURES, report.record())
    rows = [entry.record() for entry in report.classes]
    write_atomic(folder / CLASSES, _csv(rows[0], (row.values() for row in rows)))
    write_atomic(
        folder / MATRIX, _csv(["", *names], ([n, *r] for n, r in zip(names, confusion, strict=True)))
    )
    write_atomic(folder / IMAGES, _images(report))
    write_atomic(folder / CONFUSION, draw_confusion(confusion, names))
    write_atomic(folder / RELIABILITY, draw_reliability(report.calibration))
    hardest = find_hardest(found, report.samples, names, MOST_HARDEST)
    if hardest:
        tiles = [
            Tile(report.samples.image(image.index).numpy(), image.title, f"{number}: loss {image.loss:.2f}")
            for number, image in enumerate(hardest, 1)
        ]
        write_atomic(folder / HARDEST, draw_tiles(tiles))
    sections = (
        _heading(report),
        error_section(confusion, names),
        _reliability(report.calibration),
        hardest_section(hardest),
        *_left_out(report),
    )
    write_atomic(folder / PAGE, "\n\n".join(sections) + "\n")


def summary(report: Report) -> str:
    """The figures in a few lines."""
    found, calibration = report.evaluation, report.calibration
    lines = [
        f"{_subject(report)} on {report.data} ({report.split}), {how_shown(report)}",
        f"top-1 {_share(report.top1, report.top1_interval)}, {found.correct:,} of "
        f"{counted(found.count, 'image')}",
    ]
    if report.top5 is not None and report.top5_interval is not None:
        lines.append(f"top-5 {_share(report.top5, report.top5_interval)}")
    lines.append(
        f"log loss {found.loss:.4f}, calibration error {calibration.error:.2%} "
        f"(worst bin {calibration.worst:.2%})"
    )
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def how_shown(report: Report) -> str:
    """The protocol in words: "10crop, short side 256 px, 10 views, mean of probabilities"."""
    protocol = report.protocol
    splits = [protocol.name]
    if protocol.name != "single" or protocol.scales is not None:
        sizes = dict.fromkeys(", ".join(map(str, scales)) for scales in report.scales)
        splits.append(f"short side {' or '.join(sizes)} px")
    if report.views > 1:
        splits.append(counted(report.views, "view") + (" with mirror images" if protocol.flip else ""))
    if report.views > 1 or len(report.networks) > 1:
        splits.append(f"mean of {protocol.average}")
    return ", ".join(splits)


def _heading(report: Report) -> str:
    found = report.evaluation
    top5 = ""
    if report.top5 is not None and report.top5_interval is not None:
        top5 = f"\n**Top-5 accuracy {_share(report.top5, report.top5_interval)}.**"
    notes = "".join(f"\n\nNote: {plain(note, 'markdown')}." for note in report.notes)
    return f"""# {plain(_subject(report), "markdown")} on {plain(report.data, "markdown")}

**Top-1 accuracy {_share(report.top1, report.top1_interval)}**: {found.correct:,} of
{counted(found.count, "image")}.{top5}

Protocol: {how_shown(report)}; split: {plain(report.split, "markdown")}.
The mean log loss is {found.loss:.4f}.{notes}"""


def _reliability(calibration: Calibration) -> str:
    return f"""## Calibration

![Accuracy against confidence]({RELIABILITY})

On the whole, predictions are right {"less" if _is_bold(calibration) else "more"} often than their
probabilities say. The two differ by {calibration.error:.2%} on average (expected calibration error,
{len(calibration.bins)} bins) and by {calibration.worst:.2%} in the worst bin; where they agree, a bar
ends at the dashed line."""


def _is_bold(calibration: Calibration) -> bool:
    gaps = [
        (each.confidence - each.accuracy) * each.count
        for each in calibration.bins
        if each.confidence is not None and each.accuracy is not None
    ]
    return sum(gaps) > 0.0


def _left_out(report: Report) -> list[str]:
    if not report.skipped:
        return []
    lines = [
        f"- {plain(entry.path, 'markdown')}: {plain(entry.reason, 'markdown')}" for entry in report.skipped
    ]
    return ["## Left out\n\nThese images cannot be used and are not counted:\n\n" + "\n".join(lines)]


def _share(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:.2%} (95 % interval {bounds[0]:.2%} to {bounds[1]:.2%})"


def _subject(report: Report) -> str:
    names = report.networks
    return names[0] if len(names) == 1 else f"the ensemble of {', '.join(names[:-1])} and {names[-1]}"


def _images(report: Report) -> str:
    found, names = report.evaluation, report.class_names
    rows = (
        [
            report.samples.name(row),
            names[int(report.samples.labels[row])],
            names[int(found.predicted[row])],
            round(float(report.confidences[row]), 6),
            round(float(found.losses[row]), 6),
        ]
        for row in np.flatnonzero(report.seen.numpy()).tolist()
    )
    return _csv(("image", "class", "prediction", "probability", "loss"), rows)


def _csv(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(plain_row(head))
    writer.writerows(map(plain_row, rows))
    return text.getvalue()
