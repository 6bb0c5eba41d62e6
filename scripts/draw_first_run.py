"""Draws the image at the top of the README: a training curve, and predictions for digits drawn by hand.

The hardest images of the same training are kept for the docs.

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
from convatlas.plots.style import DPI, png, soften, styled
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
    with styled() as colours, tempfile.TemporaryDirectory() as name:
        figure = Figure(figsize=(10.0, 3.4), layout="constrained", dpi=DPI)
        curve, *images = figure.subplots(1, 4, width_ratios=[2.2, 1, 1, 1])
        folder = Path(name)
        run = convatlas.train("lenet5", data="digits", out=folder)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        paths = hand_drawn(folder)
        predictions = convatlas.load(run.folder).predict(paths)
        for axes, path, prediction in zip(images, paths, predictions, strict=True):
            assert isinstance(prediction, Prediction)
            axes.imshow(np.asarray(read_image(path)), cmap="gray", vmin=0, vmax=255)
            (first, share), *others = prediction.top
            axes.set_title(f"{first}  {share:.1%}")
            said = "\n".join(f"{label}  {share:.1%}" for label, share in others)
            axes.set_xlabel(said, loc="left", color=colours.muted)
            axes.set(xticks=[], yticks=[])
        epochs = [line["epoch"] for line in lines]
        curve.plot(epochs, [100 * (1 - line["test_accuracy"]) for line in lines])
        curve.set(xlabel="epoch", ylabel="test error (%)", ylim=(0, 20))
        curve.set_title(f"LeNet-5 on the embedded digits: {run.test_accuracy:.1%} right")
        soften(curve)
        (ROOT / "docs/images/first_run.png").write_bytes(png(figure))
        (ROOT / "docs/images/hardest.png").write_bytes((run.folder / "hardest.png").read_bytes())


if __name__ == "__main__":
    main()
