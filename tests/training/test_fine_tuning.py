"""What of a network is frozen, how fast each stage learns, and which weights a fine-tuning ends with."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import convatlas
from convatlas.data.sets import ImageSet, Source
from convatlas.runs.run import epoch_lines
from convatlas.training.head_probe import features_of
from convatlas.training.layer_groups import layer_groups
from convatlas.training.lr_range import pick_lr
from convatlas.training.optim import Optimiser, ParamOptions
from convatlas.training.recipes.find import find_recipe
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.recipes.suit import suited
from convatlas.training.signals import StoppedError
from convatlas.training.spec import make_spec
from convatlas.training.tuning import Tuning

BASE: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.01, "momentum": 0.9}


def stripes(count: int = 60, seed: int = 0) -> ImageSet:
    """Images (N, 3, 16, 16) whose class is the direction of their stripes, with noise."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    rows, columns = np.mgrid[:16, :16]
    kinds = np.stack([rows, columns, rows + columns])[labels]
    phase = draw.integers(0, 8, (count, 1, 1))
    waves = 128 + 60 * np.sin((kinds + phase) * 1.2)
    values = np.clip(waves[:, None] + draw.normal(0, 40, (count, 3, 16, 16)), 0, 255)
    return ImageSet(torch.from_numpy(values.astype(np.uint8)), torch.from_numpy(labels))


@pytest.fixture(scope="module")
def source() -> Source:
    return Source("stripes", stripes(), stripes(30, 1), ("a", "b", "c"), "0" * 64, (3, 16, 16))


def run_with(source: Source, out: Path, network: str = "resnet20_cifar", **settings: Any) -> convatlas.Run:
    options = {
        key: settings.pop(key) for key in ("save_every", "keep", "callbacks", "name") if key in settings
    }
    recipe = Recipe(**(BASE | settings))
    return convatlas.train(network, data=source, recipe=recipe, out=out, exact=True, **options)


def first_weights(network: str = "resnet20_cifar") -> dict[str, Tensor]:
    torch.manual_seed(0)
    return convatlas.create_model(network, num_classes=3, in_chans=3).state_dict()


def moved(run: convatlas.Run) -> set[str]:
    """Names of the weights and statistics that training changed."""
    before, after = first_weights(), load_file(run.weights)
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("name", "stages", "samples"),
    [
        pytest.param(
            "resnet18",
            5,
            {"stem.conv.weight": 0, "stages.0.0.conv1.conv.weight": 1, "head.fc.bias": 5},
            id="resnet",
        ),
        pytest.param(
            "vgg11",
            6,
            {"head.fc.weight": 6, "stages.0.conv1.conv.weight": 0, "head.hidden.fc2.weight": 5},
            id="hidden-layers",
        ),
        pytest.param(
            "googlenet", 5, {"head.fc.weight": 5, "aux_heads.0.fc.weight": 5}, id="side-classifiers"
        ),
    ],
)
def test_depths(name: str, stages: int, samples: dict[str, int]) -> None:
    with torch.device("meta"):
        net = convatlas.create_model(name)
    groups = layer_groups(net)
    assert groups.head == stages
    assert set(groups.params) == {key for key, _ in net.named_parameters()}
    assert {key: groups.params[key] for key in samples} == samples


def test_depths_of_a_module_from_elsewhere() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    groups = layer_groups(net)
    assert groups.params == {
        "0.weight": 0,
        "0.bias": 0,
        "1.weight": 1,
        "1.bias": 1,
        "4.weight": 2,
        "4.bias": 2,
    }


def test_a_frozen_backbone_stays_to_the_bit(source: Source, tmp_path: Path) -> None:
    assert moved(run_with(source, tmp_path, freeze="backbone")) == {"head.fc.weight", "head.fc.bias"}


def test_frozen_stages_stay_to_the_bit(source: Source, tmp_path: Path) -> None:
    changed = moved(run_with(source, tmp_path, freeze=2))
    assert {name.split(".")[0] for name in changed} == {"stages", "head"}
    assert {name.split(".")[1] for name in changed if name.startswith("stages")} == {"1", "2"}


def test_frozen_norms_stay_to_the_bit(source: Source, tmp_path: Path) -> None:
    changed = moved(run_with(source, tmp_path, freeze_norms=True))
    assert not [name for name in changed if "norm" in name]
    assert [name for name in changed if "conv" in name]


def test_the_classifier_learns_first(source: Source, tmp_path: Path) -> None:
    run = run_with(source, tmp_path, head_first=0.5, save_every=4, keep=9)
    before = first_weights()
    after = {
        step: load_file(run.folder / "checkpoints" / f"step-{step}" / "weights.safetensors")
        for step in (4, 8)
    }
    assert torch.equal(after[4]["stem.conv.weight"], before["stem.conv.weight"])
    assert torch.equal(after[4]["stem.norm.running_mean"], before["stem.norm.running_mean"])
    assert not torch.equal(after[4]["head.fc.weight"], before["head.fc.weight"])
    assert not torch.equal(after[8]["stem.conv.weight"], before["stem.conv.weight"])


def test_stages_begin_one_after_the_other() -> None:
    net = convatlas.create_model("resnet20_cifar")
    tuning = Tuning(net, Recipe(**BASE, head_first=0.2, unfreeze=0.6))
    # Four stages (stem and three) before the classifier, the deepest of which begins at once.
    found = [tuning.first_stage(share) for share in (0.0, 0.19, 0.2, 0.3, 0.34, 0.47, 0.59, 0.6, 1.0)]
    assert found == [4, 4, 3, 3, 2, 1, 1, 0, 0]
    tuning.set_progress(0.25)
    assert not net.get_parameter("stages.1.0.conv1.conv.weight").requires_grad
    assert net.get_parameter("stages.2.0.conv1.conv.weight").requires_grad
    tuning.release()
    assert all(p.requires_grad for p in net.parameters())


def test_each_stage_has_its_rate() -> None:
    net = convatlas.create_model("resnet20_cifar")
    params, options = Tuning(net, Recipe(**BASE, layer_decay=0.5, head_lr=0.1)).params()
    scale = {id(p): how.lr_scale for p, how in zip(params, options, strict=True)}
    found = [
        scale[id(net.get_parameter(f"{name}.weight"))] for name in ("stem.conv", "stages.2.0.conv1.conv")
    ]
    assert found == [0.5**4, 0.5]
    assert scale[id(net.get_parameter("head.fc.weight"))] == pytest.approx(10.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rates_and_pull_are_those_of_torch(optimizer: str) -> None:
    """Against torch.optim with a group for each rate; the pull is a loss of half the squared distance."""
    torch.manual_seed(0)
    start = [torch.randn(4, 3), torch.randn(5, 3)]
    ours = [t.clone().requires_grad_() for t in start]
    theirs = [t.clone().requires_grad_() for t in start]
    pull = 0.3 if optimizer == "sgd" else 0.0
    kind: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    rest = {"momentum": 0.9} if optimizer == "sgd" else {}
    other = kind(
        [{"params": theirs[:1], "lr": 0.05}, {"params": theirs[1:], "lr": 0.1}], weight_decay=0.0, **rest
    )
    recipe = Recipe(epochs=1, batch_size=1, lr=0.1, optimizer=optimizer, l2_sp=pull, **rest)  # pyright: ignore
    optimiser = Optimiser(ours, recipe, options=[ParamOptions(0.5, pulled=True), ParamOptions(1.0)])
    for _ in range(5):
        sum((p**3).mean() for p in ours).backward()
        optimiser.step(0.1)
        optimiser.zero_grad()
        distance = 0.5 * pull * ((theirs[0] - start[0]) ** 2).sum()
        (sum((p**3).mean() for p in theirs) + distance).backward()
        other.step()
        other.zero_grad()
    for mine, yours in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-6)


def test_adamw_is_pulled_apart_from_its_gradient() -> None:
    """With a gradient of 0, the distance to the first value shrinks by lr times `l2_sp` a step."""
    p = torch.zeros(3).requires_grad_()
    recipe = Recipe(epochs=1, batch_size=1, lr=0.1, optimizer="adamw", l2_sp=0.5, weight_decay=0.9)
    optimiser = Optimiser([p], recipe, options=[ParamOptions(1.0, pulled=True)])
    with torch.no_grad():
        p.fill_(2.0)
    for _ in range(3):
        p.grad = torch.zeros(3)
        optimiser.step(0.1)
    assert p.tolist() == pytest.approx([2.0 * 0.95**3] * 3)


def test_what_begins_late_is_corrected_for_its_own_steps() -> None:
    """Adam's first step is as long as the rate, whenever it comes."""
    late, early = torch.zeros(2).requires_grad_(), torch.zeros(2).requires_grad_()
    optimiser = Optimiser(
        [early, late], Recipe(epochs=1, batch_size=1, lr=0.1, optimizer="adamw", head_first=0.5)
    )
    for step in range(10):
        early.grad = torch.ones(2)
        late.grad = torch.ones(2) if step == 9 else None
        optimiser.step(0.1)
    assert late.tolist() == pytest.approx([-0.1, -0.1], rel=1e-4)


def test_a_soup_is_the_mean_of_the_last_epochs(source: Source, tmp_path: Path) -> None:
    run = run_with(source, tmp_path, epochs=3, soup=2, save_every=4, keep=9)
    each = [load_file(run.folder / "checkpoints" / f"step-{n}" / "weights.safetensors") for n in (8, 12)]
    final = load_file(run.weights)
    for name, tensor in final.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (each[0][name] + each[1][name]) / 2)


def test_the_best_epoch_by_validation_is_kept(source: Source, tmp_path: Path) -> None:
    run = run_with(source, tmp_path, epochs=5, validation=0.2, lr=0.3, save_every=3, keep=9)
    lines = epoch_lines(run.metrics())
    losses = [line["validation_loss"] for line in lines]
    best = int(np.argmin(losses)) + 1
    assert run.record["result"]["kept_epoch"] == best
    assert run.record["data"]["validation"] == 12
    assert run.record["data"]["train"] == 48
    kept = load_file(run.folder / "checkpoints" / f"step-{best * 3}" / "weights.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_file(run.weights).items())
    assert run.test_accuracy == lines[best - 1]["test_accuracy"]


def test_patience_looks_at_the_validation_images(source: Source, tmp_path: Path) -> None:
    run = run_with(source, tmp_path, epochs=30, validation=0.2, patience=2, lr=1e-6, soup=3)
    lines = epoch_lines(run.metrics())
    accuracies = [line["validation_accuracy"] for line in lines]
    assert len(lines) == int(np.argmax(accuracies)) + 1 + 2 < 30


def test_a_stopped_fine_tuning_goes_on_to_the_same_bits(source: Source, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        **{"epochs": 4, "validation": 0.2, "soup": 2, "l2_sp": 0.1, "head_start": "probe"},
        **{"head_first": 0.2, "unfreeze": 0.6, "layer_decay": 0.9, "optimizer": "adamw", "momentum": 0.0},
    }
    straight = run_with(source, tmp_path / "straight", **options)

    def stop(line: dict[str, Any]) -> None:
        if line.get("epoch") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        run_with(source, tmp_path / "stopped", name="run", callbacks=[stop], **options)
    resumed = convatlas.resume(tmp_path / "stopped" / "run", data=source)
    first, second = load_file(straight.weights), load_file(resumed.weights)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture(scope="module")
def probe(source: Source, tmp_path_factory: pytest.TempPathFactory) -> convatlas.Run:
    out = tmp_path_factory.mktemp("probe")
    return convatlas.train(
        "resnet20_cifar", data=source, recipe="probe", out=out, weight_decay=1e-3, exact=True
    )


def test_a_probe_is_logistic_regression_on_frozen_features(source: Source, probe: convatlas.Run) -> None:
    """Against scikit-learn's, on features that are computed here."""
    assert moved(probe) == {"head.fc.weight", "head.fc.bias"}
    net = convatlas.load(probe).network
    train: Any = source.train
    transform: Any = net.transform
    with torch.no_grad():
        features = net.forward_head(net.forward_features(transform.normalise(train.images)), pre_logits=True)
        ours = net.head.fc(features).softmax(dim=1)
    x = features.double().numpy()
    x = (x - x.mean(axis=0)) / np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())
    theirs = LogisticRegression(C=1.0 / (len(x) * 1e-3), max_iter=5000, tol=1e-8).fit(x, train.labels.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(x), atol=0.01)


def test_a_probe_says_its_loss_before_and_after(source: Source, probe: convatlas.Run) -> None:
    first, *epochs = probe.metrics()
    assert (first["step"], len(epochs)) == (0, 1)
    assert epochs[0]["loss"] == pytest.approx(first["probe_loss"])
    assert epochs[0]["loss"] < math.log(3) < first["loss"] * 2
    assert epochs[0]["train_accuracy"] > 0.9


def test_fine_tuning_begins_at_guessing_and_then_with_the_probe(
    monkeypatch: pytest.MonkeyPatch, source: Source, tmp_path: Path
) -> None:
    net = convatlas.create_model("resnet20_cifar", num_classes=7)
    net.reset_classifier(3)
    run = convatlas.train(net, data=source, recipe="finetune", epochs=1, out=tmp_path, exact=True)
    first = run.metrics()[0]
    assert first["loss"] == pytest.approx(math.log(3), rel=1e-4)
    assert first["probe_loss"] < 0.9 * math.log(3)


def test_features_are_those_before_the_last_layer(source: Source) -> None:
    from convatlas.training.distributed import Ranks
    from convatlas.training.evaluation import EvalTransform

    net = convatlas.create_model("resnet20_cifar")
    ranks = Ranks(torch.device("cpu"))
    table = features_of(net, source.test, EvalTransform((0.5,) * 3, (0.25,) * 3, batch_size=7), ranks)
    with torch.no_grad():
        test: Any = source.test
        maps = net.eval().forward_features((test.images / 255.0 - 0.5) / 0.25)
    torch.testing.assert_close(table, maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_published_weights_are_fine_tuned() -> None:
    spec = make_spec("efficientnet_lite0", "digits", None, {}, pretrained=True)
    assert spec.recipe == find_recipe("", "finetune")
    assert make_spec("efficientnet_lite0", "digits", None, {}).recipe == find_recipe("efficientnet_lite0")
    named = make_spec("efficientnet_lite0", "digits", "modern", {}, pretrained=True)
    assert named.recipe == find_recipe("", "modern")


def test_small_sets_take_more_epochs_of_smaller_batches() -> None:
    recipe = find_recipe("", "finetune")
    found = [suited(recipe, count, {}) for count in (100, 300, 1_000, 10_000)]
    assert all(a.epochs > b.epochs for a, b in itertools.pairwise(found))
    assert all(a.batch_size <= b.batch_size for a, b in itertools.pairwise(found))
    steps = [
        r.epochs * count / r.batch_size for r, count in zip(found, (100, 300, 1_000, 10_000), strict=True)
    ]
    assert all(150 <= count <= 500 for count in steps)
    kept = suited(
        find_recipe("", "finetune", {"epochs": 2, "batch_size": 5}), 100, {"epochs": 2, "batch_size": 5}
    )
    assert (kept.epochs, kept.batch_size) == (2, 5)


def test_a_rate_is_found_and_its_curve_kept(source: Source, tmp_path: Path) -> None:
    run = convatlas.train(
        "resnet20_cifar", data=source, recipe=Recipe(**BASE), lr="auto", out=tmp_path, exact=True
    )
    curve = json.loads((run.folder / "lr-range.json").read_text())
    assert (run.folder / "lr-range.png").read_bytes().startswith(b"\x89PNG")
    assert run.record["config"]["recipe"]["lr"] == curve["lr"]
    assert 1e-5 <= curve["lr"] <= 1.0
    assert len(curve["rates"]) == len(curve["losses"]) >= 10
    assert curve["rates"] == sorted(curve["rates"])
    assert moved(run)


def test_the_rate_of_a_curve() -> None:
    """The loss falls fastest between 1e-3 and 1e-2, is least at 0.1 and explodes beyond."""
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert pick_lr(rates, [2.0, 2.0, 1.9, 1.1, 1.0, 9.0]).lr == pytest.approx(1e-3, rel=0.2)
    assert pick_lr(rates, [2.0, 1.9, 1.8, 1.6, 1.0, 9.0]).lr == pytest.approx(1e-2)
    with pytest.raises(ValueError, match="`lr`='auto': the loss was infinite"):
        pick_lr(rates[:2], [1.0, 2.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"freeze": 0}, "`freeze`=0; expected 'backbone', a number of stages from 1", id="stages"
        ),
        pytest.param(
            {"freeze": "head"}, "`freeze`='head'; expected one of 'backbone' or a whole number", id="word"
        ),
        pytest.param(
            {"layer_decay": 1.5}, "`layer_decay`=1.5; expected a factor above 0, up to 1", id="decay"
        ),
        pytest.param(
            {"soup": 2, "ema_decay": 0.9}, "`soup`=2 and `ema_decay`=0.9 both average", id="averages"
        ),
        pytest.param(
            {"head_first": 0.5, "unfreeze": 0.5},
            "`unfreeze`=0.5; expected more than `head_first`=0.5",
            id="order",
        ),
        pytest.param(
            {"freeze": "backbone", "unfreeze": 0.5},
            "`freeze`='backbone' leaves nothing to unfreeze",
            id="nothing",
        ),
        pytest.param({"optimizer": "lbfgs"}, "it needs `freeze`='backbone'; received None", id="probe"),
        pytest.param({"validation": 1.0}, "`validation`=1.0; expected a rate of at least 0", id="validation"),
    ],
)
def test_options_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**(BASE | settings))


def test_what_a_network_or_a_set_cannot_do(source: Source, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"`freeze`=9: the network has 4 stages before its classifier; expected 1"
    ):
        run_with(source, tmp_path, freeze=9)
    with pytest.raises(ValueError, match=r"`validation`=0.01: holds back none of the 60 training images"):
        run_with(source, tmp_path, validation=0.01)
    with pytest.raises(ValueError, match=r"nin_cifar: a probe needs a network of the atlas whose classifier"):
        convatlas.train("nin_cifar", data=source, recipe="probe", out=tmp_path)


def test_class_weights_reach_the_probe(source: Source, tmp_path: Path) -> None:
    """A class with few images is answered more often where all classes count alike."""
    train: Any = source.train
    few = torch.cat([torch.arange(60)[train.labels != 2], torch.arange(60)[train.labels == 2][:3]])
    uneven = Source(
        "uneven",
        ImageSet(train.images[few], train.labels[few]),
        source.test,
        source.class_names,
        "1" * 64,
        (3, 16, 16),
    )
    answers: list[int] = []
    for weights in (None, "balanced"):
        run = convatlas.train(
            "resnet20_cifar",
            data=uneven,
            recipe="probe",
            class_weights=weights,
            weight_decay=0.1,
            out=tmp_path,
        )
        net = convatlas.load(run).network
        transform: Any = net.transform
        test: Any = source.test
        with torch.no_grad():
            answers.append(int((net(transform.normalise(test.images)).argmax(dim=1) == 2).sum()))
    assert answers[1] > answers[0]


def test_losses_of_a_probe_are_cross_entropy() -> None:
    from convatlas.metrics.linear_probe import log_losses

    logits, labels = np.random.default_rng(0).normal(0, 30, (6, 4)), np.arange(6) % 4
    expected = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(log_losses(logits, labels), expected.numpy(), atol=1e-12)
