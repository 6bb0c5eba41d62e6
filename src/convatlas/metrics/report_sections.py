"""Sections on mistakes that every report of a network has, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convatlas.escape import plain
from convatlas.metrics.error_analysis import ClassResult, HardImage, worst_classes

PAGE, CONFUSION, HARDEST = "report.md", "confusion.png", "hardest.png"
"""The report, and the figures that its sections show."""
MOST_CLASSES, MOST_WORST, MOST_HARDEST = 20, 10, 24
"""Classes of a drawn confusion matrix, rows of the table of worst classes and hardest images, at most."""


def error_section(confusion: NDArray[np.int64], names: Sequence[str]) -> str:
    """The part of a page on the worst classes; it shows `confusion.png`.

    Args:
        confusion: (K, K); a row for each true class, a column for each prediction.
        names: K names.
    """
    worst = worst_classes(confusion, MOST_WORST)
    if not worst:
        return "## Mistakes\n\nThere were none."
    rows = [
        f"| {_cell(names[row.label])} | {row.images:,} | {row.right / row.images:.1%} | {_share(row)} | "
        f"{_cell(names[row.mostly])} ({row.mistaken:,}) |"
        for row in worst
        if row.mostly is not None
    ]
    part = f"The {MOST_CLASSES} classes with most mistakes are shown. " if len(names) > MOST_CLASSES else ""
    return "\n".join(
        [
            "## Mistakes",
            "",
            f"![Confusion matrix: a row for each true class, a column for each prediction]({CONFUSION})",
            "",
            f"{part}Correct predictions are blue, wrong ones orange. The worst classes:",
            "",
            "| class | test images | recall | precision | most confused with |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _share(row: ClassResult) -> str:
    return f"{row.right / row.predicted:.1%}" if row.predicted else "never predicted"


def hardest_section(hardest: list[HardImage]) -> str:
    """The part of a page on the test images with the highest loss; it shows `hardest.png`."""
    if not hardest:
        return "## Hardest images\n\nNo test image has a loss of 0.01 or more."
    wrong = sum(image.truth != image.prediction for image in hardest)
    rows = [
        f"| {number} | {_cell(i.truth)} | {_cell(i.prediction)} | {i.loss:.2f} | {_cell(i.name)} |"
        for number, i in enumerate(hardest, 1)
    ]
    return "\n".join(
        [
            "## Hardest images",
            "",
            f"![The test images with the highest loss]({HARDEST})",
            "",
            f"The {len(hardest)} test images with the highest loss, {wrong} of them misclassified.",
            "Images with a wrong label are found here first.",
            "",
            "| | truth | prediction | loss | image |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _cell(text: str) -> str:
    return plain(text, "markdown")
