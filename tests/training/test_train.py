import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import convatlas
from convatlas import train
from convatlas.training.recipes import RECIPES, Recipe, find_recipe, parse_settings
from convatlas.training.run import open_run


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def test_lenet_learns_to_read(lenet_run: Path) -> None:
    assert (
        open_run(lenet_run).test_accuracy >= 0.98
    )  # one seed; the mean over five is in benchmarks/RESULTS.md


def test_the_stated_accuracy_is_that_of_the_saved_weights(lenet_run: Path) -> None:
    from convatlas.data.sources import load_source

    net, source = convatlas.load(lenet_run), load_source("digits")
    with torch.no_grad():
        right = (
            (net(net.transform.normalise(source.test.images)).argmax(dim=1) == source.test.labels)
            .sum()
            .item()
        )
    assert right / len(source.test) == open_run(lenet_run).test_accuracy


def test_the_run_folder(lenet_run: Path) -> None:
    assert lenet_run.name == "lenet5-digits-1"
    assert sorted(path.name for path in lenet_run.iterdir()) == [
        "curves.png", "metrics.jsonl", "report.md", "run.json", "weights.safetensors",
    ]  # fmt: skip
    record = json.loads((lenet_run / "run.json").read_text())
    assert record["config"]["network"] == "lenet5"
    assert record["config"]["data"] == "digits"
    assert record["config"]["recipe"]["epochs"] == RECIPES["lenet5"].epochs
    assert record["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert len(record["data"]["fingerprint"]) == 64
    assert 0.0 <= record["result"]["test_accuracy"] <= 1.0


def test_metrics_have_a_line_for_each_epoch(lenet_run: Path) -> None:
    lines = [json.loads(line) for line in (lenet_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, RECIPES["lenet5"].epochs + 1))
    assert {"step", "loss", "lr", "images_per_s", "test_accuracy", "test_loss"} <= lines[0].keys()
    assert lines[-1]["step"] == lines[0]["step"] * len(lines)
    assert lines[-1]["loss"] < lines[0]["loss"] / 4


def test_weights_carry_the_card(lenet_run: Path) -> None:
    with safe_open(lenet_run / "weights.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["network"] == "lenet5"
    assert metadata["paper"].endswith("(1998), doi:10.1109/5.726791")
    assert json.loads(metadata["class_names"]) == [str(digit) for digit in range(10)]
    assert sum(w.numel() for w in load_file(lenet_run / "weights.safetensors").values()) == 61_706


def test_report_and_curves_can_be_read(lenet_run: Path) -> None:
    report = (lenet_run / "report.md").read_text()
    assert "convatlas train lenet5 --data digits --seed 0\n" in report
    assert "Gradient-Based Learning Applied to Document Recognition" in report
    picture = Image.open(lenet_run / "curves.png")
    assert picture.width > 600
    assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    folders = [train("lenet5", seed=seed, out=tmp_path, epochs=2).folder for seed in (5, 5, 6)]
    assert [folder.name for folder in folders] == [f"lenet5-digits-{n}" for n in (1, 2, 3)]
    assert sha256(folders[0]) == sha256(folders[1])
    assert sha256(folders[0]) != sha256(folders[2])


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train("lenet5", out=tmp_path, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_printed_network_trains_with_its_own_loss(tmp_path: Path) -> None:
    run = train("lenet5_1998", out=tmp_path, epochs=4)
    assert run.record["config"]["recipe"]["loss"] == "rbf"
    assert run.test_accuracy > 0.8
    assert run.load()(torch.zeros(1, 1, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"affine": None}, id="no-augmentation"),
        pytest.param({"batch_size": 37}, id="odd-batch"),
        pytest.param({"warmup": 0.0, "momentum": 0.5, "weight_decay": 0.0}, id="optimiser"),
    ],
)
def test_settings_reach_the_training(tmp_path: Path, settings: dict[str, object]) -> None:
    plain = train("lenet5", out=tmp_path, epochs=1)
    changed = train("lenet5", out=tmp_path, epochs=1, **settings)
    for name, value in settings.items():
        assert changed.record["config"]["recipe"][name] == value
    assert sha256(plain.folder) != sha256(changed.folder)


def test_learning_rate_is_a_ramp_and_then_a_cosine() -> None:
    recipe = Recipe(lr=0.2, warmup=0.1)
    assert recipe.lr_at(0, 100) == pytest.approx(0.02)
    assert recipe.lr_at(9, 100) == pytest.approx(0.2)
    assert recipe.lr_at(54, 100) == pytest.approx(0.1)
    assert recipe.lr_at(99, 100) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param({"network": "lenet"}, r"unknown network 'lenet'; nearest: lenet5", id="network"),
        pytest.param({"data": "digit"}, r"unknown data set 'digit'; nearest: digits", id="data"),
        pytest.param({"seed": -1}, r"`seed`=-1; expected a whole number of at least 0", id="seed"),
        pytest.param({"epoch": 3}, r"no field `epoch` \(received 3\); nearest: epochs", id="field"),
        pytest.param({"epochs": 0}, r"`epochs`=0; expected a whole number of at least 1", id="epochs"),
        pytest.param({"lr": float("nan")}, r"`lr`=nan; expected a number above 0", id="lr"),
        pytest.param(
            {"warmup": 1.0}, r"`warmup`=1.0; expected a rate of at least 0 and below 1", id="warmup"
        ),
        pytest.param({"loss": "hing"}, r"`loss`='hing'; allowed are 'softmax', 'rbf'", id="loss"),
    ],
)
def test_bad_arguments_leave_no_folder(tmp_path: Path, call: dict[str, object], message: str) -> None:
    arguments = {"network": "lenet5"} | call
    with pytest.raises(ValueError, match=message):
        train(**arguments, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_explodes_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the loss is (nan|inf) at step \d+ .*a smaller `lr` than 1e\+38 may help"
    ):
        train("lenet5", out=tmp_path, epochs=1, lr=1e38)


def test_a_place_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`out`=.*cannot make a run folder there"):
        train("lenet5", out=tmp_path / "file" / "runs", epochs=1)


def test_settings_are_read_as_toml() -> None:
    items = ["epochs=3", "lr = 0.1", "loss=rbf", "affine={degrees = 5.0}"]
    assert parse_settings(items) == {"epochs": 3, "lr": 0.1, "loss": "rbf", "affine": {"degrees": 5.0}}
    with pytest.raises(ValueError, match="expected FIELD=VALUE"):
        parse_settings(["epochs"])


def test_a_network_without_a_recipe() -> None:
    with pytest.raises(ValueError, match="no_such has no training recipe; these have: lenet5"):
        find_recipe("no_such", {})
