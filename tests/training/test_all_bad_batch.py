"""A batch whose images are all bad teaches nothing, and ends no training."""

import math
from pathlib import Path

from PIL import Image

from convatlas import train
from convatlas.data.sources import load_source


def test_batches_without_a_image_are_left_out(tmp_path: Path) -> None:
    """Most images are lost between the check of the folder and the training."""
    for name, shade in (("dark", 30), ("light", 220)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16), (shade, number, 0)).save(tmp_path / "set" / name / f"{number}.png")
    source = load_source(f"folder:{tmp_path / 'set'}")
    for index in range(len(source.train) - 3):
        Path(source.train.name(index)).write_bytes(b"lost")
    run = train(
        "resnet20_cifar",
        data=source,
        on_bad_image="skip",
        epochs=2,
        batch_size=2,
        input_size=16,
        workers=0,
        exact=True,
        out=tmp_path / "runs",
    )
    assert math.isfinite(run.test_accuracy)
    assert all(math.isfinite(row["train_loss"]) for row in run.metrics() if "train_loss" in row)
