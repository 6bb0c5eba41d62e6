import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import convatlas
from convatlas import train
from convatlas.data.sets import ImageSet, Source
from convatlas.data.sources import load_source
from convatlas.runs.run import epoch_lines, open_run
from convatlas.training.logging.events import EpochDone, Facts, Silent, StepDone
from convatlas.training.recipes.find import find_recipe
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.recipes.schedules import Cosine


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


class TinyNet(nn.Module):
    """A network that is not in the registry, with normalisation."""

    def __init__(self, in_chans: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


def spots(count: int = 96, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Small images whose class is their brightness: (N, 1, 12, 12) of uint8, and labels."""
    draw = np.random.default_rng(0)
    labels = np.arange(count) % classes
    pixels = draw.integers(0, 60, (count, 1, 12, 12)) + labels[:, None, None, None] * 60
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels)


def test_lenet_learns_to_read(lenet_run: Path) -> None:
    # One seed; the mean over five is in benchmarks/RESULTS.md.
    assert open_run(lenet_run).test_accuracy >= 0.98


def test_the_stated_accuracy_is_that_of_the_saved_weights(lenet_run: Path) -> None:
    net, source = convatlas.create_model("lenet5"), load_source("digits")
    net.load_state_dict(load_file(lenet_run / "weights.safetensors"))
    with safe_open(lenet_run / "weights.safetensors", "pt") as file:
        transform = json.loads(file.metadata()["transform"])
    mean, std = (torch.tensor(transform[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        images = torch.stack([source.test.image(index) for index in range(len(source.test))])
        predictions = net.eval()((images / 255.0 - mean) / std).argmax(dim=1)
    right = int((predictions == source.test.labels).sum())
    assert right / len(source.test) == open_run(lenet_run).test_accuracy


def test_the_run_folder(lenet_run: Path) -> None:
    assert lenet_run.name == "lenet5-digits-1"
    assert {path.name for path in lenet_run.iterdir()} >= {
        "checkpoints", "curves.png", "metrics.jsonl", "report.md", "run.json", "weights.safetensors",
    }  # fmt: skip
    record = json.loads((lenet_run / "run.json").read_text())
    assert record["config"]["network"] == "lenet5"
    assert record["config"]["data"] == "digits"
    assert record["config"]["recipe"]["epochs"] == find_recipe("lenet5").epochs
    assert record["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert len(record["data"]["fingerprint"]) == 64
    assert record["result"]["steps"] == find_recipe("lenet5").epochs * 45


def test_metrics_have_a_line_for_each_epoch(lenet_run: Path) -> None:
    everything = open_run(lenet_run).metrics()
    assert all({"step", "epoch", "loss", "lr", "images_per_s"} <= line.keys() for line in everything)
    assert [line["step"] for line in everything] == sorted(line["step"] for line in everything)
    lines = epoch_lines(everything)
    assert [line["epoch"] for line in lines] == list(range(1, find_recipe("lenet5").epochs + 1))
    assert {"test_accuracy", "test_top5", "test_loss"} <= lines[0].keys()
    assert lines[-1]["step"] == lines[0]["step"] * len(lines)
    assert lines[-1]["loss"] < lines[0]["loss"] / 4
    assert lines[0]["train_accuracy"] < lines[-1]["train_accuracy"] <= 1.0
    # Counted over whole epochs of images.
    images = len(load_source("digits").train)
    assert lines[-1]["train_accuracy"] * images == pytest.approx(round(lines[-1]["train_accuracy"] * images))


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
    image = Image.open(lenet_run / "curves.png")
    assert image.width > 600
    assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    folders = [train("lenet5", seed=seed, out=tmp_path, epochs=2).folder for seed in (5, 5, 6)]
    assert [folder.name for folder in folders] == [f"lenet5-digits-{n}" for n in (1, 2, 3)]
    assert sha256(folders[0]) == sha256(folders[1])
    assert sha256(folders[0]) != sha256(folders[2])


def test_the_callers_random_numbers_and_threads_are_left_alone(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train("lenet5", out=tmp_path, epochs=1, drop_rate=0.1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_the_printed_network_trains_with_its_own_loss(tmp_path: Path) -> None:
    run = train("lenet5_1998", out=tmp_path, epochs=4)
    assert run.record["config"]["recipe"]["loss"] == "rbf"
    assert run.record["result"]["best_test_accuracy"] > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"augment.affine": "none"}, id="no-augmentation"),
        pytest.param({"batch_size": 37}, id="odd-batch"),
        pytest.param({"warmup": 0.0, "momentum": 0.5, "weight_decay": 0.0}, id="optimiser"),
        pytest.param({"drop_rate": 0.3}, id="dropout"),
        pytest.param({"label_smoothing": 0.1, "class_weights": "balanced"}, id="loss"),
        pytest.param({"ema_decay": 0.9}, id="average"),
        pytest.param({"augment.mixup": 0.2, "augment.cutmix": 1.0}, id="mixing"),
        pytest.param({"clip_norm": 0.1}, id="clipping"),
        pytest.param({"sizes": [[0.0, 40], [0.5, 32]]}, id="sizes"),
        pytest.param({"augment.resized_crop.scale": [0.5, 1.0]}, id="crop-of-each-image"),
    ],
)
def test_settings_reach_the_training(tmp_path: Path, settings: dict[str, Any]) -> None:
    plain = train("lenet5", out=tmp_path, epochs=1)
    changed = train("lenet5", out=tmp_path, epochs=1, **settings)
    assert changed.record["settings"] == settings | {"epochs": 1}
    assert sha256(plain.folder) != sha256(changed.folder)
    assert 0.3 < changed.test_accuracy < 1.0
    mixed = "augment.mixup" in settings
    assert all(("train_accuracy" in line) is not mixed for line in epoch_lines(changed.metrics()))


def test_accumulated_parts_give_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # LeNet-5 has no batch normalisation: its gradients do not depend on what is computed together.
    # In bfloat16, each part would be rounded by itself.
    monkeypatch.setattr("convatlas.training.cpu.choose._autocast", lambda _: (None, "float32"))
    runs = [
        train("lenet5", out=tmp_path, epochs=1, batch_size=64, accumulate=parts, lr=0.01) for parts in (1, 4)
    ]
    first, second = (load_file(run.folder / "weights.safetensors") for run in runs)
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=2e-5), name
    right = [epoch_lines(run.metrics())[0]["train_accuracy"] for run in runs]
    assert right[0] == pytest.approx(right[1], abs=2 / 1438)


def test_early_stopping(tmp_path: Path) -> None:
    run = train("lenet5", out=tmp_path, epochs=30, patience=1, lr=1e-6)
    accuracies = [line["test_accuracy"] for line in epoch_lines(run.metrics())]
    assert len(accuracies) < 30
    assert accuracies[-1] <= max(accuracies[:-1])
    assert run.record["result"]["epochs"] == len(accuracies)


def test_the_average_is_what_is_saved(tmp_path: Path) -> None:
    images, labels = spots()
    net = TinyNet(num_classes=3)
    averaged = train(
        net, data=TensorDataset(images, labels), out=tmp_path, recipe="lenet5", epochs=1, ema_decay=0.9
    )
    saved = load_file(averaged.folder / "weights.safetensors")
    newest = sorted((averaged.folder / "checkpoints").iterdir())[-1]
    average, last = (load_file(newest / f"{name}.safetensors") for name in ("average", "weights"))
    for name, tensor in saved.items():
        assert torch.equal(tensor, average[name])
        assert torch.equal(tensor, net.state_dict()[name])  # The module ends with them, too.
    assert any(not torch.equal(saved[name], last[name]) for name in saved)


def test_own_size_and_channels_of_images_in_memory(tmp_path: Path) -> None:
    images, labels = spots()
    source = Source("spots", ImageSet(images[:72], labels[:72]), ImageSet(images[72:], labels[72:]),
                    ("dark", "grey", "light"), "0" * 64, (1, 12, 12))  # fmt: skip
    run = train("resnet20_cifar", data=source, out=tmp_path, epochs=1, batch_size=24)
    with safe_open(run.folder / "weights.safetensors", "pt") as file:
        transform = json.loads(file.metadata()["transform"])
    assert transform["input_size"] == [1, 12, 12]
    values = images[:72].double() / 255.0
    assert transform["mean"] == pytest.approx([float(values.mean())], abs=1e-3)
    assert transform["std"] == pytest.approx([float(values.std())], abs=1e-3)
    assert run.folder.name == "resnet20_cifar-spots-1"


def test_a_module_and_a_dataset_from_python(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, (images, labels) = TinyNet(num_classes=3), spots(120)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run = train(
        net, data=TensorDataset(images, labels), out=tmp_path,
        recipe=Recipe(epochs=12, batch_size=16, lr=0.05, momentum=0.9, schedule=Cosine()),
    )  # fmt: skip
    assert run.record["result"]["best_test_accuracy"] > 0.8
    assert run.record["config"]["network"] == "TinyNet"
    assert run.record["data"]["train"] + run.record["data"]["test"] == 120
    assert run.record["config"]["recipe"] != {}
    saved = load_file(run.folder / "weights.safetensors")
    assert any(not torch.equal(saved[name], tensor) for name, tensor in before.items())


def test_a_dataset_with_its_own_test_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, labels = spots(120)
    learn, test = TensorDataset(images[:90], labels[:90]), TensorDataset(images[90:], labels[90:])
    run = train(TinyNet(num_classes=3), data=learn, test_data=test, out=tmp_path, recipe="lenet5", epochs=1)
    assert (run.record["data"]["train"], run.record["data"]["test"]) == (90, 30)


def test_fields_of_the_networks_config(tmp_path: Path) -> None:
    images, labels = spots()
    part = ImageSet(images, labels)
    source = Source("spots", part, part, ("a", "b", "c"), "0" * 64, (1, 12, 12))
    options = {"data": source, "out": tmp_path, "epochs": 1, "batch_size": 48}
    run = train("resnet20_cifar", model={"shortcut": "B"}, **options)
    names = load_file(run.folder / "weights.safetensors")
    assert any("shortcut" in name for name in names)
    with safe_open(run.folder / "weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["model"]) == {"shortcut": "B"}
    predictor = convatlas.load(run)
    assert any("shortcut" in name for name in predictor.network.state_dict())


def test_side_classifiers_learn_with_the_rest(tmp_path: Path) -> None:
    class WithAux(TinyNet):
        def __init__(self) -> None:
            super().__init__(num_classes=3)
            self.aux_heads = nn.ModuleList([nn.Linear(8, 3)])

        def forward_aux(self, x: Tensor) -> Any:
            features = F.relu(self.norm(self.conv(x))).mean(dim=(2, 3))
            return convatlas.models.network.AuxLogits(self.fc(features), (self.aux_heads[0](features),))

    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        net = WithAux()
        before = net.aux_heads[0].weight.clone()
        options = {"out": tmp_path, "recipe": "lenet5", "epochs": 1, "weight_decay": 0.0}
        train(net, data=TensorDataset(*spots()), aux_weight=weight, **options)
        assert torch.equal(net.aux_heads[0].weight, before) == (weight == 0.0)


def test_callbacks_receive_each_line(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    run = train("lenet5", out=tmp_path, epochs=2, callbacks=[lines.append])
    assert lines == run.metrics()


def test_a_watcher_is_told_everything(tmp_path: Path) -> None:
    told: list[Any] = []

    class Watching(Silent):
        def start(self, facts: Facts) -> None:
            told.append(facts)

        def step(self, done: StepDone) -> None:
            told.append(done)

        def epoch(self, done: EpochDone) -> None:
            told.append(done)

    run = train("lenet5", out=tmp_path, epochs=2, watcher=Watching())
    facts, *rest = told
    assert (facts.network, facts.data, facts.folder, facts.num_steps) == ("lenet5", "digits", run.folder, 90)
    assert (facts.num_images, facts.num_test_images, facts.first_step, facts.world_size) == (1438, 359, 0, 1)
    steps = [event for event in rest if isinstance(event, StepDone)]
    epochs = [event for event in rest if isinstance(event, EpochDone)]
    assert [step.step for step in steps] == list(range(1, 91))
    assert [step.epoch for step in steps] == [0] * 45 + [1] * 45
    assert steps[44].images == steps[89].images == 1438
    assert steps[-1].left_s == 0.0
    recipe = find_recipe("lenet5", None, {"epochs": 2})
    assert [step.lr for step in steps] == [recipe.lr_at(step, 90) for step in range(90)]
    assert all(step.memory_bytes > 10**7 and 0.0 <= step.data_share < 1.0 for step in steps)
    assert rest.index(epochs[0]) == 45
    assert [epoch.test_accuracy for epoch in epochs] == [
        line["test_accuracy"] for line in epoch_lines(run.metrics())
    ]


def test_a_name_of_its_own(tmp_path: Path) -> None:
    assert train("lenet5", out=tmp_path, name="mine", epochs=1).folder == tmp_path / "mine"
    with pytest.raises(
        ValueError, match=r"mine: is there already; `convatlas resume .*mine` goes on with it"
    ):
        train("lenet5", out=tmp_path, name="mine", epochs=1)
    with pytest.raises(ValueError, match=r"`name`='a/b'; expected the name of a folder in `out`"):
        train("lenet5", out=tmp_path, name="a/b", epochs=1)


def test_float32_and_nothing_rearranged(tmp_path: Path) -> None:
    fast = train("lenet5", out=tmp_path, epochs=1)
    exact = train("lenet5", out=tmp_path, epochs=1, exact=True)
    assert exact.record["speed"][0].startswith("exact")
    assert exact.test_accuracy == pytest.approx(fast.test_accuracy, abs=0.05)


def test_a_place_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`out`=.*cannot make a run folder there"):
        train("lenet5", out=tmp_path / "file" / "runs", epochs=1)
