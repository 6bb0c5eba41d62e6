import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from convatlas.catalog.cards import list_models
from convatlas.data.augment import Affine, Augment, PadCrop, Policy, ResizedCrop
from convatlas.training.recipes.find import (
    BOOK,
    Recipe,
    find_recipe,
    paper_recipe,
    read_recipe_file,
    recipe_names,
    recipe_text,
    recipe_title,
    recipe_toml,
)
from convatlas.training.recipes.schedules import Cosine, Exponential, Linear, OneCycle, Step

BASE = {"epochs": 10, "batch_size": 8, "lr": 0.1}


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_its_papers_recipe(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe == find_recipe("", paper_recipe(name))
    assert name.endswith("_cifar") <= (recipe.augment.resized_crop is None)


def test_every_file_of_the_book_is_a_recipe() -> None:
    assert sorted(path.stem for path in BOOK.iterdir()) == sorted(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_and_its_file(name: str, tmp_path: Path) -> None:
    recipe = find_recipe("", name)
    assert recipe_text(name).startswith("# ")
    assert 20 < len(recipe_title(name)) < 100
    (tmp_path / "copy.toml").write_text(recipe_toml(recipe))
    assert read_recipe_file(tmp_path / "copy.toml") == recipe
    assert find_recipe("", tmp_path / "copy.toml") == recipe


@pytest.mark.parametrize(
    ("network", "batch_size", "rates", "weight_decay"),
    [
        # Rates at the end of some epochs.
        pytest.param("alexnet", 128, {1: 0.01, 90: 1e-5}, 5e-4, id="Krizhevsky-2012-5"),
        pytest.param("vgg16", 256, {1: 0.01, 74: 1e-5}, 5e-4, id="Simonyan-2014-3.1"),
        pytest.param("googlenet", 32, {8: 0.01, 9: 0.0096, 17: 0.009216}, 2e-4, id="Szegedy-2014-6"),
        pytest.param("inception_v3", 32, {2: 0.045, 3: 0.0423, 5: 0.039762}, 4e-5, id="Szegedy-2015-8"),
        pytest.param("inception_resnet_v2", 32, {2: 0.045, 4: 0.0423}, 4e-5, id="Szegedy-2016-4"),
        pytest.param("resnet34", 256, {30: 0.1, 31: 0.01, 61: 1e-3}, 1e-4, id="He-2015-3.4"),
        pytest.param("resnet50", 256, {30: 0.1, 31: 0.01, 61: 1e-3}, 1e-4, id="fb.resnet.torch"),
        pytest.param("resnet20_cifar", 128, {82: 0.1, 83: 0.01, 124: 1e-3}, 1e-4, id="He-2015-4.2"),
        pytest.param("preact_resnet18", 256, {30: 0.1, 31: 0.01, 61: 1e-3}, 1e-4, id="He-2016"),
        pytest.param(
            "wide_resnet28_10_cifar",
            128,
            {60: 0.1, 61: 0.02, 121: 0.004, 161: 8e-4},
            5e-4,
            id="Zagoruyko-2016",
        ),
        pytest.param(
            "fractalnet20_cifar", 100, {200: 0.02, 201: 2e-3, 301: 2e-4, 351: 2e-5}, 0.0, id="Larsson-2016"
        ),
        pytest.param("resnext50_32x4d", 256, {30: 0.1, 31: 0.01, 91: 1e-4}, 1e-4, id="Xie-2016"),
        pytest.param("densenet121", 256, {30: 0.1, 31: 0.01, 61: 1e-3}, 1e-4, id="Huang-2016-ImageNet"),
        pytest.param("densenet40_12_cifar", 64, {150: 0.1, 151: 0.01, 226: 1e-3}, 1e-4, id="Huang-2016"),
        pytest.param("se_resnet50", 1024, {30: 0.6, 31: 0.06, 91: 6e-4}, 1e-4, id="Hu-2017-6.1"),
        pytest.param("mobilenet_v2_100", 96, {2: 0.045, 5: 0.0441}, 4e-5, id="Sandler-2018"),
        pytest.param("xception", 32, {2: 0.045, 3: 0.0423}, 1e-5, id="Chollet-2016"),
        # A cosine over 24,000 steps counted from 0 is half way down at step 12,000, one after epoch 300.
        pytest.param(
            "nasnet_a_cifar",
            32,
            {300: 0.0125 * (1.0 + math.sin(math.pi / 24_000)), 600: 0.0},
            5e-4,
            id="Zoph-2017-A.2",
        ),
        pytest.param("efficientnet_b0", 4096, {5: 0.256 * 0.97**2, 12: 0.256 * 0.97**4}, 1e-5, id="Tan-2019"),
    ],
)
def test_what_the_papers_print(
    network: str, batch_size: int, rates: dict[int, float], weight_decay: float
) -> None:
    recipe = find_recipe(network)
    assert (recipe.batch_size, recipe.weight_decay) == (batch_size, weight_decay)
    steps = 40  # of an epoch
    found = [recipe.lr_at(epoch * steps - 1, recipe.epochs * steps) for epoch in rates]
    assert found == pytest.approx(list(rates.values()), rel=1e-4, abs=1e-9)


def test_the_long_resnets_begin_with_a_tenth() -> None:
    """Section 4.2: 0.01 for about 400 of 64k steps."""
    recipe = find_recipe("resnet110_cifar")
    found = [recipe.lr_at(step, 64_000) for step in (0, 399, 400, 31_999, 32_000, 48_000)]
    assert found == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.001])


def test_a_recipe_can_be_cut() -> None:
    recipe = find_recipe("resnet20_cifar", "resnet_cifar", {"epochs": 10})
    assert [recipe.lr_at(epoch, 10) for epoch in (4, 5, 6, 7, 8)] == pytest.approx(
        [0.1, 0.01, 0.01, 0.01, 0.001]
    )


@pytest.mark.parametrize(
    ("network", "recipe", "settings", "kind"),
    [
        pytest.param("resnet20_cifar", None, {"epochs": 20}, Linear, id="an-eighth"),
        pytest.param("resnet20_cifar", None, {"epochs": 21}, Step, id="more"),
        pytest.param("resnet20_cifar", None, {"lr": 0.05}, Step, id="all-epochs"),
        pytest.param("resnet20_cifar", "resnet_cifar", {"epochs": 10}, Step, id="named"),
        pytest.param("resnet20_cifar", None, {"epochs": 10, "schedule": "step"}, Step, id="asked-for"),
        pytest.param(
            "resnet20_cifar", None, {"epochs": 10, "schedule.at": [0.3, 0.6]}, Step, id="other-steps"
        ),
        pytest.param("resnet110_cifar", None, {"epochs": 10}, Step, id="begins-low"),
        pytest.param("resnet50", None, {"epochs": 10}, Linear, id="imagenet"),
        pytest.param("mobilenet_v2_100", None, {"epochs": 10}, Exponential, id="no-steps"),
        pytest.param("mine", None, {"epochs": 10}, Cosine, id="modern"),
    ],
)
def test_few_epochs_go_down_in_a_straight_line(
    network: str, recipe: str | None, settings: dict[str, object], kind: type
) -> None:
    assert type(find_recipe(network, recipe, settings).schedule) is kind


@pytest.mark.parametrize(
    ("network", "recipe", "settings", "crop"),
    [
        pytest.param("resnet20_cifar", None, {"epochs": 20}, PadCrop(pad=1), id="an eighth"),
        pytest.param("resnet20_cifar", None, {"epochs": 21}, PadCrop(pad=4), id="more"),
        pytest.param("resnet20_cifar", "resnet_cifar", {"epochs": 10}, PadCrop(pad=4), id="named"),
        pytest.param(
            "resnet20_cifar", None, {"epochs": 10, "augment.pad_crop.pad": 2}, PadCrop(pad=2), id="asked for"
        ),
        pytest.param(
            "resnet20_cifar", None, {"epochs": 10, "augment.flip": 0.0}, PadCrop(pad=1), id="another part"
        ),
        pytest.param(
            "wide_resnet28_10_cifar", None, {"epochs": 10}, PadCrop(pad=1, mode="reflect"), id="reflected"
        ),
        pytest.param("resnet50", None, {"epochs": 10}, None, id="imagenet"),
    ],
)
def test_few_epochs_move_crops_less(
    network: str, recipe: str | None, settings: dict[str, object], crop: PadCrop | None
) -> None:
    assert find_recipe(network, recipe, settings).augment.pad_crop == crop


def test_lenet_is_warmed_up_and_cooled_down() -> None:
    recipe = find_recipe("lenet5", None, {"lr": 0.2})
    found = [recipe.lr_at(step, 100) for step in (0, 9, 55, 99)]
    # Half a cosine over the 90 steps behind the warm-up, the last of which is one before the rate of 0.
    last = 0.1 * (1.0 + math.cos(math.pi * 89 / 90))
    assert found == pytest.approx([0.02, 0.2, 0.1, last], abs=1e-12)
    assert recipe.augment == Augment(affine=Affine())
    assert (find_recipe("lenet5_1998").loss, find_recipe("lenet5_1998").lr) == ("rbf", 2e-3)


def test_sizes_grow_as_in_ffcv() -> None:
    """160 px for the first 75 %, then 192."""
    recipe = find_recipe("resnet50", "ffcv")
    assert [recipe.size_at(step, 16) for step in (0, 11, 12, 15)] == [160, 160, 192, 192]
    assert find_recipe("resnet50").size_at(3, 16) is None


def test_the_average_of_a_recipe() -> None:
    assert find_recipe("efficientnet_b0").ema_at(10**6) == 0.9999
    assert find_recipe("efficientnet_b0").ema_at(0) == pytest.approx(0.1)
    assert find_recipe("resnet50").ema_at(10**6) == 0.0


def test_super_convergence() -> None:
    """Figure 1a: from 0.1 up to 3 in 5k steps and down again in 5k."""
    recipe = find_recipe("resnet56_cifar", "super_convergence")
    assert isinstance(recipe.schedule, OneCycle)
    found = [recipe.lr_at(step, 10_000) for step in (0, 4_999, 9_999)]
    assert found == pytest.approx([0.1, 3.0, 0.1], rel=0.01)


def test_a_network_from_elsewhere_trains_by_the_modern_recipe() -> None:
    assert find_recipe("MyNet") == find_recipe("MyNet", "modern")
    assert find_recipe("MyNet").optimizer == "adamw"


def test_an_alias_has_its_networks_recipe() -> None:
    assert find_recipe("resnet50") == find_recipe("resnet50_v1_5", "resnet_torch")


def test_a_recipe_may_be_given_as_such() -> None:
    mine = Recipe(**BASE)
    assert find_recipe("resnet50", mine) is mine
    assert find_recipe("resnet50", mine, {"epochs": 3}) == dataclasses.replace(mine, epochs=3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"lr": 1}, {"lr": 1}, id="number"),
        pytest.param({"optimizer": "adamw", "nesterov": False}, {"optimizer": "adamw"}, id="optimizer"),
        pytest.param({"schedule": "cosine"}, {"schedule": Cosine()}, id="schedule"),
        pytest.param(
            {"schedule": "exponential", "schedule.spans": 5},
            {"schedule": Exponential(spans=5)},
            id="schedule-and-its-field",
        ),
        pytest.param(
            {"schedule.at": [0.3], "schedule.levels": [1.0, 0.5]},
            {"schedule": Step(at=(0.3,), levels=(1.0, 0.5))},
            id="schedule-fields",
        ),
        pytest.param(
            {"augment.pad_crop.pad": 2}, {"augment": Augment(flip=0.5, pad_crop=PadCrop(pad=2))}, id="nested"
        ),
        pytest.param({"augment.pad_crop": "none"}, {"augment": Augment(flip=0.5)}, id="none"),
        pytest.param({"augment": {}}, {"augment": Augment()}, id="no-augmentation"),
        pytest.param(
            {"augment.policy": "trivial_augment", "augment.resized_crop.scale": [0.2, 1.0]},
            {
                "augment": Augment(
                    flip=0.5,
                    pad_crop=PadCrop(),
                    policy=Policy(kind="trivial_augment"),
                    resized_crop=ResizedCrop(scale=(0.2, 1.0)),
                )
            },
            id="policy",
        ),
        pytest.param({"class_weights": "balanced"}, {"class_weights": "balanced"}, id="class-weights"),
        pytest.param({"patience": 5, "clip_norm": 1.0}, {"patience": 5, "clip_norm": 1.0}, id="optional"),
        pytest.param({"sizes": [[0.0, 16]]}, {"sizes": ((0.0, 16),)}, id="sizes"),
    ],
)
def test_settings(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    found = find_recipe("resnet20_cifar", None, settings)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"epochs": 0}, "`epochs`=0; expected a whole number of at least 1", id="epochs"),
        pytest.param({"epochs": 1.5}, "`epochs`=1.5; expected a whole number", id="half-an-epoch"),
        pytest.param({"batch_size": -1}, "`batch_size`=-1; expected a whole number", id="batch"),
        pytest.param({"accumulate": 9}, "`accumulate`=9; at most `batch_size`=8", id="accumulate"),
        pytest.param({"lr": float("nan")}, "`lr`=nan; expected a number above 0", id="lr"),
        pytest.param({"eps": 0.0}, "`eps`=0.0; expected a number above 0", id="eps"),
        pytest.param({"clip_norm": 0.0}, "`clip_norm`=0.0; expected a number above 0", id="clip"),
        pytest.param({"weight_decay": -1e-4}, "`weight_decay`=-0.0001; expected a number of", id="decay"),
        pytest.param({"aux_weight": float("inf")}, "`aux_weight`=inf; expected a number", id="aux"),
        pytest.param({"warmup": 1.0}, "`warmup`=1.0; expected a rate of at least 0 and below 1", id="warmup"),
        pytest.param({"momentum": 1.0}, "`momentum`=1.0; expected a rate", id="momentum"),
        pytest.param({"label_smoothing": -0.1}, "`label_smoothing`=-0.1; expected a rate", id="smoothing"),
        pytest.param({"ema_decay": 1.0}, "`ema_decay`=1.0; expected a rate", id="ema"),
        pytest.param({"drop_rate": 1.0}, "`drop_rate`=1.0; expected a rate", id="drop"),
        pytest.param({"betas": (0.9, 1.0)}, r"`betas`=\[0.9, 1.0\]; expected two rates", id="betas"),
        pytest.param({"loss": "hing"}, "`loss`='hing'; expected one of 'softmax', 'hinge', 'rbf'", id="loss"),
        pytest.param({"optimizer": "adam"}, "`optimizer`='adam'; expected one of 'sgd'", id="optimizer"),
        pytest.param({"sizes": ((0.1, 160),)}, r"`sizes`=\[\[0.1, 160\]\]; expected pairs", id="sizes-start"),
        pytest.param({"sizes": ((0.0, 160), (0.0, 192))}, "the shares rising from 0", id="sizes-order"),
        pytest.param({"sizes": ((0.0, 0),)}, "expected pairs of a share of the training", id="sizes-px"),
        pytest.param(
            {"schedule": OneCycle(), "warmup": 0.1}, "`warmup`=0.1; a one_cycle schedule", id="two-warm-ups"
        ),
        pytest.param(
            {"loss": "rbf", "class_weights": "balanced"}, "the loss 'rbf' takes none", id="weights-of-rbf"
        ),
        pytest.param(
            {"loss": "hinge", "label_smoothing": 0.1}, "`label_smoothing`=0.1; the loss 'hinge'", id="soft"
        ),
        pytest.param(
            {"loss": "rbf", "augment": Augment(cutmix=1.0)}, "`augment.cutmix`=1.0; the loss", id="mixed"
        ),
    ],
)
def test_what_a_recipe_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**(BASE | fields))


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe 'resnet_cifa'; nearest: resnet_cifar, "):
        find_recipe("resnet20_cifar", "resnet_cifa")
    with pytest.raises(ValueError, match=r"a recipe has no field `epoch` \(received 3\); nearest: epochs"):
        find_recipe("resnet20_cifar", None, {"epoch": 3})
    with pytest.raises(ValueError, match=r"`augment` has no field `flp` \(received 0.5\); nearest: flip"):
        find_recipe("resnet20_cifar", None, {"augment.flp": 0.5})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("epochs = ", r"mine\.toml: ", id="not-toml"),
        pytest.param("epochs = 3\nlr = 0.1", r"mine\.toml: `batch_size` is missing", id="missing"),
        pytest.param("epoch = 3", r"mine\.toml: a recipe has no field `epoch`", id="field"),
        pytest.param(
            "epochs = 3\nbatch_size = 1\nlr = 0.1\naugment.flip = 2.0", r"mine\.toml: `flip`=2.0", id="range"
        ),
    ],
)
def test_a_file_that_is_no_recipe(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        find_recipe("resnet20_cifar", str(tmp_path / "mine.toml"))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"mine\.toml"):
        find_recipe("resnet20_cifar", tmp_path / "mine.toml")
