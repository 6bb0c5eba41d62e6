"""Images that are not square: seen alike in training, evaluation, prediction and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import convatlas
from convatlas.data.augment import Augment, ResizedCrop
from convatlas.data.crops import TestFit, TrainFit
from convatlas.data.fit import FITS, Fit, count_tiles
from convatlas.data.transforms import Transform, read_transform
from convatlas.training.recipes.recipe import Recipe

RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)
MEAN = (0.2, 0.4, 0.6)


def bands(side: int = 32) -> Tensor:
    """Three squares side by side, red, green and blue: (3, side, 3 * side)."""
    squares = [
        torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, side, side)
        for colour in (RED, GREEN, BLUE)
    ]
    return torch.cat(squares, dim=2)


def transform(fit: Fit) -> Transform:
    return Transform("photo", (3, 24, 24), MEAN, (0.25,) * 3, "bilinear", 1.0, fit)


def colour_at(image: Tensor, row: int, column: int) -> tuple[int, ...]:
    return tuple(image[:, row, column].tolist())


def test_the_middle_is_cut_out() -> None:
    image = transform("crop").pixels(bands())
    assert {colour_at(image, row, column) for row in (0, 23) for column in (2, 21)} == {GREEN}


def test_the_whole_is_squashed() -> None:
    image = transform("squash").pixels(bands())
    assert [colour_at(image, 12, column) for column in (2, 12, 21)] == [RED, GREEN, BLUE]
    assert colour_at(image, 0, 2) == RED


@pytest.mark.parametrize("upright", [False, True])
def test_the_whole_is_padded_with_the_mean(upright: bool) -> None:
    image = bands().transpose(1, 2) if upright else bands()
    image = transform("pad").pixels(image)
    image = image.transpose(1, 2) if upright else image
    assert [colour_at(image, 12, column) for column in (2, 12, 21)] == [RED, GREEN, BLUE]
    assert colour_at(image, 7, 12) == colour_at(image, 16, 12) == (51, 102, 153)
    assert colour_at(image, 8, 12) == colour_at(image, 15, 12) == GREEN
    normalised = transform("pad").prepare(bands())
    assert float(normalised[:, 0].abs().max()) < 1e-6


def test_squares_cover_the_whole() -> None:
    views = transform("tiles").views(bands())
    assert [colour_at(view, 12, 12) for view in views] == [RED, GREEN, BLUE]
    assert torch.equal(transform("tiles").pixels(bands()), views[1])


@pytest.mark.parametrize(
    ("size", "count"),
    [((32, 32), 1), ((32, 33), 1), ((32, 40), 2), ((64, 32), 2), ((32, 96), 3), ((10, 1000), 8)],
)
def test_how_many_squares(size: tuple[int, int], count: int) -> None:
    assert count_tiles(*size) == count


def test_every_px_of_a_long_image_is_in_a_square() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 40, 100)
    wide = Transform("photo", (3, 40, 40), MEAN, (0.25,) * 3, "bilinear", 1.0, "tiles")
    seen = {int(value) for view in wide.views(ramp) for value in view[0, 0]}
    assert seen == set(range(100))


@pytest.mark.parametrize("fit", FITS)
def test_training_fits_without_augmentation_as_testing_does(fit: Fit) -> None:
    ours = TrainFit(Augment(), 0, 0, 1.0, "bilinear", fit, (51, 102, 153))(bands(), 0, 24)
    if fit == "tiles":
        assert ours.shape == (3, 24, 24)
        return
    assert torch.equal(ours, TestFit(24, 1.0, "bilinear", fit, (51, 102, 153))(bands()))


def test_crops_of_training_are_of_the_fitted_image() -> None:
    whole = Augment(resized_crop=ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    padded = TrainFit(whole, 0, 0, 1.0, "bilinear", "pad", (51, 102, 153))(bands(), 0, 24)
    assert colour_at(padded, 0, 0) == (51, 102, 153)
    squashed = TrainFit(whole, 0, 0, 1.0, "bilinear", "squash")(bands(), 0, 24)
    assert [colour_at(squashed, 12, column) for column in (2, 12, 21)] == [RED, GREEN, BLUE]
    tiles = {colour_at(TrainFit(whole, 0, epoch, fit="tiles")(bands(), 3, 24), 12, 12) for epoch in range(20)}
    assert len(tiles) > 2


def test_records_keep_the_fit() -> None:
    assert read_transform(transform("pad").record()) == transform("pad")
    old = json.loads(transform("crop").record())
    del old["fit"]
    assert read_transform(json.dumps(old)) == transform("crop")
    with pytest.raises(ValueError, match="a transform with `fit`='stretch'; expected one of crop, pad"):
        read_transform(json.dumps(old | {"fit": "stretch"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide images whose class is the colour at their right end, which no central crop shows."""
    root = tmp_path_factory.mktemp("wide")
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, colour in (("blue", BLUE), ("red", RED)):
            for number in range(count):
                image = draw.integers(0, 255, (40, 90, 3), dtype=np.uint8)
                image[:, 62:] = colour
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Fit, convatlas.Run]:
    recipe = Recipe(epochs=12, batch_size=8, lr=0.02, momentum=0.9)
    out = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {"input_size": 32, "exact": True, "workers": 0, "out": out}
    return {
        fit: convatlas.train("resnet20_cifar", data=f"folder:{folder}", recipe=recipe, fit=fit, **options)
        for fit in FITS
    }


@pytest.mark.parametrize("fit", FITS)
def test_training_evaluation_and_prediction_agree(
    fit: Fit, runs: dict[Fit, convatlas.Run], folder: Path
) -> None:
    run = runs[fit]
    report = convatlas.evaluate(run.folder, f"folder:{folder}")
    assert report.top1 == run.test_accuracy
    assert report.evaluation.loss == pytest.approx(run.metrics()[-1]["test_loss"], rel=1e-4, abs=1e-6)
    answers: Any = convatlas.load(run).predict(folder / "val")
    right = [answer.label == Path(answer.image).parent.name for answer in answers]
    assert sum(right) / len(right) == run.test_accuracy


def test_what_the_middle_hides_is_learnt_by_the_others(runs: dict[Fit, convatlas.Run]) -> None:
    assert {runs[fit].test_accuracy for fit in ("pad", "squash")} == {1.0}


@pytest.mark.parametrize("fit", ["pad", "tiles"])
def test_an_exported_file_fits_images_alike(
    fit: Fit, runs: dict[Fit, convatlas.Run], folder: Path, tmp_path: Path
) -> None:
    predictor = convatlas.load(runs[fit])
    convatlas.export(predictor.network, tmp_path / "net.pt2")
    exported = convatlas.load(tmp_path / "net.pt2")
    assert exported.transform == predictor.transform
    ours: Any = predictor.predict(folder / "val" / "red")
    theirs: Any = exported.predict(folder / "val" / "red")
    assert [a.probability for a in theirs] == pytest.approx([a.probability for a in ours], abs=1e-4)


def test_several_views_are_averaged(runs: dict[Fit, convatlas.Run], folder: Path) -> None:
    predictor = convatlas.load(runs["tiles"])
    path = folder / "val" / "red" / "0.png"
    how: Any = predictor.transform
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    views = torch.stack([how.prepare(pixels, view) for view in range(3)])
    with torch.no_grad():
        expected = predictor.network(views).softmax(dim=1).mean(dim=0)
    answer: Any = predictor.predict(path)[0]
    assert answer.probability == pytest.approx(float(expected.max()), abs=1e-5)


def test_an_unknown_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    fit: Any = "stretch"
    with pytest.raises(ValueError, match="`fit`='stretch'; allowed are 'crop', 'pad', 'squash', 'tiles'"):
        convatlas.train("resnet20_cifar", data=f"folder:{folder}", fit=fit, out=tmp_path)
