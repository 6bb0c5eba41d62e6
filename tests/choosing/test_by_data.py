"""`choose` by a user's images: estimates, baselines, limits and comparisons."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

import convatlas
from convatlas.choosing.baselines import neighbours, simple_features
from convatlas.choosing.by_data import choose_by_data, read_pool
from convatlas.choosing.choose import Limits
from convatlas.choosing.estimate import DataSelection
from convatlas.cli import make_app
from convatlas.data.sets import DataError, ImageSet, Source
from convatlas.metrics.comparing import compare
from convatlas.metrics.linear_probe import make_folds


def stripes(count: int, seed: int = 0, classes: int = 2) -> ImageSet:
    """Noisy images (N, 3, 32, 32) whose class is the direction of their stripes."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    rows, columns = np.mgrid[:32, :32]
    kinds = np.stack([rows, columns, rows + columns])[labels]
    waves = 128 + 50 * np.sin((kinds + draw.integers(0, 8, (count, 1, 1))) * 1.2)
    values = np.clip(waves[:, None] + draw.normal(0, 25, (count, 3, 32, 32)), 0, 255)
    return ImageSet(torch.from_numpy(values.astype(np.uint8)), torch.from_numpy(labels))


def source_of(samples: ImageSet, classes: int = 2) -> Source:
    return Source("stripes", samples, samples, ("a", "b", "c")[:classes], "0" * 64, (3, 32, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stripes")
    samples = stripes(40)
    for number, (image, label) in enumerate(zip(samples.images, samples.labels.tolist(), strict=True)):
        path = root / "ab"[label] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root


@pytest.fixture(scope="module")
def selection(folder: Path) -> DataSelection:
    # So little time that nothing is fine-tuned.
    found = convatlas.choose("efficientnet_lite0", data=f"folder:{folder}", minutes=0.01)
    assert isinstance(found, DataSelection)
    return found


def test_networks_and_baselines_stand_side_by_side(selection: DataSelection) -> None:
    by_name = {each.network: each for each in selection.candidates}
    assert not by_name["efficientnet_lite0"].baseline
    baselines = {name for name, each in by_name.items() if each.baseline}
    assert baselines == {
        *("commonest class", "nearest neighbours on pixels", "logistic regression on pixels"),
        *("logistic regression on simple features", "largest that fits: efficientnet_lite0"),
    }
    errors = [each.error for each in selection.candidates]
    assert errors == sorted(errors)
    assert by_name["efficientnet_lite0"].error < 0.2 < by_name["commonest class"].error
    assert all(each.interval[0] <= each.error <= each.interval[1] for each in selection.candidates)
    assert by_name["efficientnet_lite0"].latency_ms > 0  # pyright: ignore[reportOptionalOperand]


def test_all_images_of_a_folder_without_a_split_are_used(selection: DataSelection, folder: Path) -> None:
    assert selection.images == 40
    assert {each.images for each in selection.candidates} == {40}
    pool = read_pool(f"folder:{folder}", None, 0)
    assert len({pool.train.name(row) for row in range(40)}) == 40


def test_a_table_with_the_command_that_trains_the_best(selection: DataSelection, folder: Path) -> None:
    text = selection.text()
    assert "95 % interval" in text
    words = shlex.split(selection.command)
    assert words[:3] == ["convatlas", "train", "efficientnet_lite0"]
    assert words[words.index("--data") + 1] == f"folder:{folder}"
    assert "--pretrained" in words
    assert "probe" in words
    # The first two are compared, not a network with itself by another name.
    assert selection.comparison is not None
    assert "efficientnet_lite0 (baseline)" not in next(line for line in text.splitlines() if "p = " in line)


def test_json_is_a_list_best_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"folder:{folder}"
    limits = ["--max-params", "1M", "--minutes", "0.01"]
    make_app()(["choose", "--data", data, *limits, "--json"], result_action="return_value")
    rows: Any = json.loads(capsys.readouterr().out)
    assert [row["error"] for row in rows] == sorted(row["error"] for row in rows)
    assert all(row["baseline"] for row in rows)  # every network with weights here is larger
    assert {"network", "error", "interval", "latency_ms", "params", "baseline"} <= rows[0].keys()


def test_limits_drop_networks_with_a_reason(folder: Path) -> None:
    found = choose_by_data(f"folder:{folder}", "efficientnet_lite0", Limits(max_latency=1e-6), minutes=0.01)
    assert found.best is None
    assert found.dropped == {"slower than 0.001 ms": ("efficientnet_lite0",)}
    assert "no network fits the limits" in found.summary()
    assert "is better than every network" in found.summary()


def test_small_networks_learn_from_scratch_where_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = convatlas.choosing.by_data.train  # pyright: ignore

    def short(network: str, **options: Any) -> Any:
        calls.append(network)
        return real(network, **(options | {"epochs": 2, "exact": True}))

    monkeypatch.setattr("convatlas.choosing.by_data.train", short)
    found = choose_by_data(source_of(stripes(40)), "lenet5", minutes=1)
    (lenet,) = [each for each in found.candidates if not each.baseline]
    assert (lenet.network, lenet.recipe, lenet.images) == ("lenet5", "from scratch", 12)
    assert calls == ["lenet5"]


def test_a_run_of_ones_own_is_a_candidate(lenet_run: Path) -> None:
    digits = convatlas.load_source("digits")
    test: Any = digits.test
    few = ImageSet(test.images[:120], test.labels[:120])
    found = choose_by_data(Source("few", few, few, digits.class_names, "0" * 64, (1, 32, 32)), str(lenet_run))
    best = found.best
    assert best is not None
    assert (best.network, best.recipe) == (str(lenet_run), "probe")
    assert best.error < 0.05
    assert found.candidates[0].network.endswith(str(lenet_run))


def test_neighbours_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(90, 6)), np.arange(90) % 2
    folds = make_folds(y, 5)
    ours = neighbours(x, y, 2, folds)
    centred = x - x.mean(axis=0)
    for rows in folds:
        rest = np.setdiff1d(np.arange(90), rows)
        theirs = KNeighborsClassifier(5, metric="cosine").fit(centred[rest], y[rest]).predict(centred[rows])
        assert (ours[rows] == theirs).all()


def test_simple_features_see_direction_and_colour() -> None:
    rows, columns = np.mgrid[:32, :32].astype(np.float32)
    waves = np.stack([np.sin(rows), np.sin(columns)])[:, None] * 0.25 + 0.5
    features = simple_features(np.concatenate([waves, np.full((1, 1, 32, 32), 0.5)]).astype(np.float32))
    orientations = features[:, 32:].reshape(3, 16, 9).mean(axis=1)
    assert [int(row.argmax()) for row in orientations[:2]] == [4, 0]
    assert float(orientations[2].max()) == 0.0
    np.testing.assert_allclose(features[2, :16], 0.5)


def test_the_paired_comparison() -> None:
    """McNemar's exact p for 8 against 1 is 2 (1 + 9) / 2^9."""
    first = np.array([True] * 8 + [False] + [True] * 20)
    second = np.array([False] * 8 + [True] + [True] * 20)
    found = compare(first, second)
    assert (found.only_first_right, found.only_second_right, found.images) == (8, 1, 29)
    assert found.p_value == pytest.approx(20 / 512)
    assert found.difference == pytest.approx(7 / 29)
    assert found.interval[0] < 7 / 29 < found.interval[1]
    assert found.says("A", "B").startswith("A beats B: errors differ by +24.1%")
    assert compare(second, first).says("A", "B").startswith("B beats A")
    assert compare(first, first).says("A", "B").startswith("no evidence that A beats B")


def test_folds_hold_every_class_and_whole_groups() -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    folds = make_folds(labels, 5, seed=3)
    assert sorted(np.concatenate(folds).tolist()) == list(range(70))
    assert all(np.bincount(labels[rows], minlength=3).tolist() == [8, 4, 2] for rows in folds)
    groups = np.arange(70) // 3
    grouped = make_folds(labels, 5, seed=3, groups=groups)
    assert all(
        len({fold for fold, rows in enumerate(grouped) if group in groups[rows]}) == 1 for group in groups
    )
    assert max(map(len, grouped)) - min(map(len, grouped)) <= 6
    assert [rows.tolist() for rows in make_folds(labels, 5, seed=4)] != [rows.tolist() for rows in folds]
    with pytest.raises(ValueError, match="`folds`=25; expected 2 to 24"):
        make_folds(labels, 25, groups=groups)


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        pytest.param(
            [0, 0, 0, 1], None, "class 'b' has 1 image; cross-validation needs 2 of each", id="one-image"
        ),
        pytest.param([0, 0, 0, 0], None, "its images are all of one class", id="one-class"),
        pytest.param([0, 1, 0, 1], 7, "its images are all alike", id="alike"),
    ],
)
def test_images_that_leave_no_choice(labels: list[int], images: int | None, message: str) -> None:
    pixels = stripes(4).images if images is None else torch.full((4, 3, 32, 32), images, dtype=torch.uint8)
    with pytest.raises(DataError, match=message):
        choose_by_data(source_of(ImageSet(pixels, torch.tensor(labels))), "efficientnet_lite0")


def test_options_out_of_range() -> None:
    source = source_of(stripes(8))
    with pytest.raises(ValueError, match=r"`minutes`=0; expected more than 0"):
        choose_by_data(source, minutes=0)
    with pytest.raises(ValueError, match=r"`min_top1`=70 is of published accuracies"):
        choose_by_data(source, limits=Limits(min_top1=70))
    with pytest.raises(ValueError, match=r"unknown network 'resnot18'"):
        choose_by_data(source, "resnot18")
    with pytest.raises(ValueError, match=r"`batch_size` and `measure` have a meaning without `data` only"):
        convatlas.choose(data=source, measure=True)
