"""What a run leaves for a person: curves while it trains, and at the end a page to read with images."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convatlas.catalog.cards import all_cards
from convatlas.escape import plain
from convatlas.files import write_atomic
from convatlas.metrics.error_analysis import find_hardest, interval
from convatlas.metrics.report_sections import (
    CONFUSION,
    HARDEST,
    MOST_HARDEST,
    PAGE,
    error_section,
    hardest_section,
)
from convatlas.plots.training import Tile, draw_confusion, draw_curves, draw_tiles
from convatlas.runs.run import WEIGHTS, Line, Run, RunError, epoch_lines, flat
from convatlas.training.logging.events import EpochDone, Facts, Silent
from convatlas.training.logging.progress import duration

if TYPE_CHECKING:
    from convatlas.data.sets import Samples
    from convatlas.metrics.classification import Evaluation

CURVES = "curves.png"
DRAWING_SHARE = 0.02
"""The most of a training's time that live curves may take."""


class LiveCurves(Silent):
    """Redraws a run's `curves.png` after an epoch, as long as that costs next to nothing.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._spent = 0.0
        self._last = 0.5  # seconds; a guess before the first drawing
        self._facts: Facts | None = None

    def start(self, facts: Facts) -> None:
        """Begins to count the time."""
        self._facts = facts
        self._started = self._clock()

    def epoch(self, done: EpochDone) -> None:
        """Draws, if there is time for it: importing what draws is due at the end in any case."""
        now = self._clock()
        if self._facts is None or self._spent + self._last > DRAWING_SHARE * (now - self._started):
            return
        imported = "matplotlib.figure" in sys.modules
        folder = self._facts.folder
        write_curves(Run(folder, {"config": {"network": self._facts.network, "data": self._facts.data}}))
        if imported:
            self._last = self._clock() - now
            self._spent += self._last


def write_curves(run: Run) -> None:
    """Draws `curves.png` into a run folder, from its `metrics.jsonl`.

    Raises:
        RunError: `metrics.jsonl` is damaged.
        OSError: the folder may not be written, or the disk is full.
    """
    config, lines = run.record["config"], run.metrics()
    measured = epoch_lines(lines)
    reached = f": test accuracy {measured[-1]['test_accuracy']:.2%}" if measured else ""
    write_atomic(run.folder / CURVES, draw_curves(f"{config['network']} on {config['data']}{reached}", lines))


def write_report(run: Run, evaluation: Evaluation, test: Samples, class_names: Sequence[str]) -> None:
    """Writes `report.md` and its images into a run folder.

    Args:
        run: finished, with its `result` in the record.
        evaluation: of the final weights on the test images.
        test: the test images.
        class_names: K names.

    Raises:
        RunError: `metrics.jsonl` is damaged, or has no epoch.
        OSError: the folder may not be written, or the disk is full.
    """
    history = epoch_lines(run.metrics())
    if not history:
        raise RunError(f"{run.folder}: nothing to report; its first epoch is not over")
    confusion = evaluation.confusion.cpu().numpy()
    hardest = find_hardest(evaluation, test, class_names, MOST_HARDEST)
    write_curves(run)
    write_atomic(run.folder / CONFUSION, draw_confusion(confusion, class_names))
    if hardest:
        tiles = [
            Tile(test.image(image.index).numpy(), image.title, f"{number}: loss {image.loss:.2f}")
            for number, image in enumerate(hardest, 1)
        ]
        write_atomic(run.folder / HARDEST, draw_tiles(tiles))
    parts = (
        _heading(run, history, int(confusion.trace()), int(confusion.sum())),
        _curves(run, history),
        error_section(confusion, class_names),
        hardest_section(hardest),
        _use(run),
        _facts(run),
    )
    write_atomic(run.folder / PAGE, "\n\n".join(parts) + "\n")


def repeat_command(record: Mapping[str, Any]) -> str | None:
    """The command that trains the same again, or None where a network or data came from Python.

    Args:
        record: what `run.json` says.
    """
    config = record["config"]
    if not record.get("from_names", True):
        return None
    words = ["convatlas", "train", config["network"], "--data", config["data"], "--seed", str(record["seed"])]
    for name, value in record.get("options", {}).items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    for name, value in record["settings"].items():
        words += ["--set", f"{name}={_toml(value)}"]
    processes = record["machine"].get("processes", 1)
    if processes > 1:
        words = ["torchrun", f"--nproc-per-node={processes}", "-m", *words]
    return shlex.join(words)


def _heading(run: Run, history: list[Line], right: int, count: int) -> str:
    config, result = run.record["config"], run.record["result"]
    low, high = interval(right, count)
    epochs = "1 epoch" if history[-1]["epoch"] == 1 else f"{history[-1]['epoch']} epochs"
    trained, taken = run.record["data"]["train"], duration(result["seconds"])
    top5 = result.get("test_top5")
    also = "" if top5 is None else f" The right class is among the top five predictions for {top5:.2%}."
    card = all_cards().get(config["network"])
    about = "A network given from Python."
    if card is not None:
        paper = card.paper
        about = (
            f"{card.name}: {card.summary}.\n"
            f'From {", ".join(paper.authors)} {paper.year}, "{paper.title}", {paper.identifier}.'
        )
    return f"""# {plain(config["network"], "markdown")} on {plain(config["data"], "markdown")}

**Test accuracy {result["test_accuracy"]:.2%}**: {right:,} of {count:,} images that training never saw,
{count - right:,} wrong (95 % interval for images of this kind: {low:.2%} to {high:.2%}).{also}

{about}

Trained for {epochs} over {trained:,} images in {taken}
({history[-1]["images_per_s"]:,.0f} images/s in the last epoch)."""


def _curves(run: Run, history: list[Line]) -> str:
    best = max(history, key=lambda line: line["test_accuracy"])
    text = f"""![Loss, test error and learning rate by epoch]({CURVES})

The highest test accuracy of any epoch was {best["test_accuracy"]:.2%} (epoch {best["epoch"]}); the
weights and the figure above are those of the last epoch, which were not chosen by the test images."""
    if run.record["config"]["recipe"].get("patience") is not None:
        text += """
The training's end was: it stops when the test accuracy no longer rises, so the figure flatters a little."""
    return text


def _use(run: Run) -> str:
    command = repeat_command(run.record)
    repeat = "It was started from Python with what no command can name: a network, data or recipe of its own."
    if command is not None:
        same = _what_is_the_same(run.record["machine"])
        repeat = f"    {plain(command)}\n\n{same}"
    use = f"convatlas predict {shlex.quote(str(run.folder))} image.png"
    if run.record["config"]["network"] not in all_cards():
        use = f"net.load_state_dict(safetensors.torch.load_file({str(run.folder / WEIGHTS)!r}))"
    return f"""## Use it

    {plain(use)}

## Repeat it

{repeat}"""


def _what_is_the_same(machine: Mapping[str, Any]) -> str:
    if machine.get("device", "cpu") != "cpu":
        return "Images, order, augmentation and schedule will be the same; on a GPU, bits may differ."
    processes = machine.get("processes", 1)
    each = f" in each of {processes} processes" if processes > 1 else ""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}{each}"
    return f"On the same machine with {threads}, this gives the same weights to the bit."


def _facts(run: Run) -> str:
    record = run.record
    rows = "\n".join(
        f"| {name} | {plain(_toml(value), 'markdown')} |" for name, value in flat(record["config"]["recipe"])
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    machine = record["machine"]
    device = machine.get("device", "cpu")
    return f"""| recipe | |
|---|---|
{rows}

Machine: {machine["processor"]}, {machine["cores"]} cores, {machine["system"]}; trained on {device}.
Versions: {versions}.
Data: SHA-256 {record["data"]["fingerprint"]}."""


def _toml(value: Any) -> str:
    """A value as `--set` reads it."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_quoted(item)}" for name, item in value.items()) + "}"
    return value if isinstance(value, str) else _quoted(value)


def _quoted(value: Any) -> str:
    if isinstance(value, Mapping):
        return _toml(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_quoted, value))}]"
    return json.dumps("none" if value is None else value, ensure_ascii=False)
