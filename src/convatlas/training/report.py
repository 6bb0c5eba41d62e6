"""What a run leaves for a person: the curves as a picture, and a page to read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from convatlas.files import write_atomic
from convatlas.models.cards import Card


def write_report(folder: Path, card: Card, record: dict[str, Any], history: list[dict[str, float]]) -> None:
    """Writes `curves.png` and `report.md` into a run folder.

    Args:
        folder: of the run.
        card: of the network.
        record: what `run.json` will say.
        history: the lines of `metrics.jsonl`.
    """
    write_atomic(folder / "curves.png", _draw_curves(card, record, history))
    write_atomic(folder / "report.md", _page(folder, card, record, history))


def _draw_curves(card: Card, record: dict[str, Any], history: list[dict[str, float]]) -> bytes:
    # Imported here, and without pyplot: it takes half a second, and only this picture needs it.
    from matplotlib.figure import Figure

    epochs = [line["epoch"] for line in history]
    figure = Figure(figsize=(9.0, 3.6), layout="constrained", dpi=120)
    losses, errors = figure.subplots(1, 2)
    losses.plot(epochs, [line["loss"] for line in history], label="training (augmented)")
    losses.plot(epochs, [line["test_loss"] for line in history], label="test")
    losses.set(
        xlabel="epoch", ylabel="loss", yscale="log", title=f"{card.name} on {record['config']['data']}"
    )
    losses.legend(frameon=False)
    errors.plot(epochs, [100.0 * (1.0 - line["test_accuracy"]) for line in history], color="C1")
    errors.set(
        xlabel="epoch", ylabel="test error (%)", title=f"test accuracy {history[-1]['test_accuracy']:.2%}"
    )
    errors.set_yscale("symlog", linthresh=1.0)
    errors.set_ylim(bottom=0.0)
    for axes in (losses, errors):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _page(folder: Path, card: Card, record: dict[str, Any], history: list[dict[str, float]]) -> str:
    config, result, data = record["config"], record["result"], record["data"]
    best = max(history, key=lambda line: line["test_accuracy"])
    recipe = "\n".join(f"| {key} | {value} |" for key, value in config["recipe"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    changed = "".join(f" --set {_toml(name, value)}" for name, value in record["settings"].items())
    return f"""# {card.name} on {config["data"]}

**Test accuracy {result["test_accuracy"]:.2%}** on {data["test"]:,} images that training never saw
({round((1.0 - result["test_accuracy"]) * data["test"])} wrong), after {len(history)} epochs over
{data["train"]:,} images in {result["seconds"]:.1f} s.

![Loss and test error by epoch](curves.png)

{card.name}: {card.summary}.
From {", ".join(card.paper.authors)} {card.paper.year}, "{card.paper.title}", {card.paper.identifier}.

The highest test accuracy of any epoch was {best["test_accuracy"]:.2%} (epoch {best["epoch"]:.0f}); the
weights and the figure above are those of the last epoch, which were not chosen by the test images.

## Use it

    convatlas predict {folder} picture.png

## Repeat it

    convatlas train {card.name} --data {config["data"]} --seed {record["seed"]}{changed}

On the same machine with {record["machine"]["threads"]} threads, this gives the same weights to the bit.

| recipe | |
|---|---|
{recipe}

Machine: {record["machine"]["processor"]}, {record["machine"]["cores"]} cores, {record["machine"]["system"]}.
Versions: {versions}.
Data: SHA-256 {data["fingerprint"]}.
"""


def _toml(name: str, value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {item}" for key, item in value.items())
        return f"'{name}={{{inner}}}'"
    return f"{name}={value}"
