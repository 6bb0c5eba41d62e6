"""Temperature, sets of classes with a stated coverage, and images of none of the classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

import convatlas
from convatlas.cli import make_app
from convatlas.data.sets import ImageSet, Source
from convatlas.predict.confidence import HeldBack, fit_temperature, make_confidence
from convatlas.training.recipes.recipe import Recipe


def answers(count: int, seed: int, classes: int = 6, sharp: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose probabilities are right at a temperature of `sharp`, and labels drawn by these."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0.0, 2.0, (count, classes))
    shares = softmax(logits, axis=1)
    labels = np.array([draw.choice(classes, p=row) for row in shares])
    return torch.from_numpy(logits * sharp).float(), torch.from_numpy(labels)


def held_of(count: int, seed: int) -> HeldBack:
    logits, labels = answers(count, seed)
    return HeldBack(logits, labels, torch.empty(count, 0), torch.empty(0, 0))


def test_the_temperature_is_found() -> None:
    logits, labels = answers(5_000, 0, sharp=3.0)
    found = fit_temperature(logits.double().numpy(), labels.numpy())
    assert found == pytest.approx(3.0, rel=0.06)
    shares = make_confidence(HeldBack(logits, labels, torch.empty(5_000, 0), torch.empty(0, 0))).tempered(
        logits.softmax(dim=1)
    )
    np.testing.assert_allclose(shares.log().numpy(), log_softmax(logits.numpy() / found, axis=1), atol=1e-4)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_truth_as_often_as_stated(coverage: float) -> None:
    """Over 20 draws of 200 images to choose thresholds by, each tried on 2,000 new ones."""
    rates: list[float] = []
    for seed in range(20):
        how = make_confidence(held_of(200, seed), coverage=coverage)
        logits, labels = answers(2_000, 1_000 + seed)
        sets = how.sets(how.tempered(logits.softmax(dim=1)))
        rates.append(
            float(np.mean([label in found for label, found in zip(labels.tolist(), sets, strict=True)]))
        )
    assert coverage - 0.01 < float(np.mean(rates)) < coverage + 0.02


def test_few_images_of_the_classes_are_refused() -> None:
    rates: list[float] = []
    for seed in range(30):
        how = make_confidence(held_of(300, seed), unknown=0.1)
        logits, _ = answers(1_000, 2_000 + seed)
        rates.append(float(np.mean(how.is_unknown(how.tempered(logits.softmax(dim=1)), None))))
    assert 0.07 < float(np.mean(rates)) < 0.12


def test_too_few_images_for_what_is_asked() -> None:
    with pytest.raises(ValueError, match=r"`coverage`: 10 images were held back; 19 are needed for 0.95"):
        make_confidence(held_of(10, 0), coverage=0.95)
    with pytest.raises(ValueError, match=r"`unknown`=1.5; expected a share between 0 and 1"):
        make_confidence(held_of(10, 0), unknown=1.5)


def stripes(count: int, kinds: tuple[int, ...], seed: int) -> ImageSet:
    """Noisy images (N, 3, 16, 16) whose class is the direction of their stripes; kind 3 has rings."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % len(kinds)
    rows, columns = np.mgrid[:16, :16]
    rings = np.hypot(rows - 8, columns - 8) * 1.5
    patterns = np.stack([rows, columns, rows + columns, rings])[np.array(kinds)[labels]]
    waves = 128 + 60 * np.sin((patterns + draw.integers(0, 8, (count, 1, 1))) * 1.2)
    values = np.clip(waves[:, None] + draw.normal(0, 25, (count, 3, 16, 16)), 0, 255)
    return ImageSet(torch.from_numpy(values.astype(np.uint8)), torch.from_numpy(labels))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> convatlas.Run:
    source = Source(
        "stripes", stripes(200, (0, 1), 0), stripes(40, (0, 1), 1), ("down", "across"), "0" * 64, (3, 16, 16)
    )
    recipe = Recipe(epochs=4, batch_size=20, lr=0.02, momentum=0.9, validation=0.4)
    out = tmp_path_factory.mktemp("runs")
    return convatlas.train("resnet20_cifar", data=source, recipe=recipe, out=out, exact=True)


def as_images(samples: ImageSet) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in samples.images]


def test_a_run_keeps_its_temperature(run: convatlas.Run) -> None:
    assert 0.05 <= run.record["result"]["temperature"] <= 20.0
    assert (run.folder / "confidence.safetensors").is_file()


def test_what_is_of_none_of_the_classes_stands_out(run: convatlas.Run) -> None:
    known, other = as_images(stripes(60, (0, 1), 5)), as_images(stripes(60, (3,), 6))
    predictor = convatlas.load(run, unknown=0.1, coverage=0.9)
    found: Any = predictor.predict(known)
    strange: Any = predictor.predict(other)
    assert np.mean([answer.unknown for answer in found]) < 0.3
    assert np.mean([answer.unknown for answer in strange]) > np.mean([answer.unknown for answer in found])
    truth = [0] * 60 + [1] * 60
    doubt = [float(answer.unknown) for answer in (*found, *strange)]
    assert roc_auc_score(truth, doubt) > 0.6
    assert all(answer.label in answer.classes for answer in found)
    plain: Any = convatlas.load(run).predict(known[:2])
    assert plain[0].classes is plain[0].unknown is None


def test_on_the_command_line(run: convatlas.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_images(stripes(1, (3,), 7))[0].save(tmp_path / "rings.png")
    words = ["predict", str(run.folder), str(tmp_path / "rings.png"), "--unknown", "0.1", "--coverage", "0.9"]
    make_app()([*words, "--json"], result_action="return_value")
    record = json.loads(capsys.readouterr().out)
    assert isinstance(record["unknown"], bool)
    assert set(record["classes"]) <= {"down", "across"}
    make_app()(words, result_action="return_value")
    assert "  in {" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"with --unknown or --coverage, answers are written as .jsonl"):
        make_app()([*words, "--out", str(tmp_path / "a.csv")], result_action="return_value")


def test_a_run_that_held_nothing_back(lenet_run: Path) -> None:
    with pytest.raises(ValueError, match="held no images back to choose thresholds by; train with"):
        convatlas.load(lenet_run, coverage=0.9)
    with pytest.raises(ValueError, match="need the folder of a run that held images back"):
        convatlas.load("efficientnet_lite0", unknown=0.1)


def test_distance_finds_what_confidence_does_not() -> None:
    """Features far from all that were learnt from are refused although the answer is sure."""
    draw = np.random.default_rng(0)
    known = torch.from_numpy(draw.normal([5.0, 0.0, 0.0], 0.1, (50, 3))).float()
    features = torch.from_numpy(draw.normal([5.0, 0.0, 0.0], 0.1, (99, 3))).float()
    logits = torch.tensor([[9.0, 0.0]]).expand(99, 2) + torch.linspace(0, 1, 99)[:, None] * torch.tensor(
        [1.0, 0.0]
    )
    how = make_confidence(HeldBack(logits, torch.zeros(99, dtype=torch.int64), features, known), unknown=0.1)
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert how.is_unknown(sure, torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])) == [False, True]
    assert math.isfinite(how.most_distance)
