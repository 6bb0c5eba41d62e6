"""Draws the image at the top of the README: a training curve, and predictions for digits drawn by hand.

./run python scripts/draw_first_run.py
"""

import importlib.util
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import convatlas
from convatlas.data.image_files import read_image
from convatlas.predict.outputs import Prediction

ROOT = Path(__file__).parent.parent


def hand_drawn(folder: Path) -> list[Path]:
    """The images that tests/predict/test_predict.py draws, in two styles."""
    spec = importlib.util.spec_from_file_location("drawn", ROOT / "tests/predict/test_predict.py")
    assert spec is not None
    assert spec.loader is not None
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    styles = [(2, 0, 255, 9), (5, 60, 200, 12), (8, 255, 0, 9)]
    paths = [folder / f"{digit}.png" for digit, *_ in styles]
    for path, (digit, ink, paper, width) in zip(paths, styles, strict=True):
        drawn.draw(digit, ink, paper, width).save(path)
    return paths


def main() -> None:
    figure = Figure(figsize=(10.0, 3.4), layout="constrained", dpi=110)
    curve, *images = figure.subplots(1, 4, width_ratios=[2.2, 1, 1, 1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = convatlas.train("lenet5", data="digits", out=folder)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        paths = hand_drawn(folder)
        predictions = run.load().predict(paths)
        for axes, path, prediction in zip(images, paths, predictions, strict=True):
            assert isinstance(prediction, Prediction)
            axes.imshow(np.asarray(read_image(path)), cmap="gray", vmin=0, vmax=255)
            axes.set_title("\n".join(f"{label}: {share:.1%}" for label, share in prediction.top), fontsize=10)
            axes.set(xticks=[], yticks=[])
    curve.plot([line["epoch"] for line in lines], [100 * (1 - line["test_accuracy"]) for line in lines])
    curve.set(xlabel="epoch", ylabel="test error (%)", ylim=(0, 20))
    curve.set_title(f"LeNet-5 on the embedded digits: {run.test_accuracy:.1%}", fontsize=10)
    curve.grid(alpha=0.3)
    curve.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs/images/first_run.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
