from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convatlas
from convatlas.evaluation.ensemble import average_weights, estimate_norms, load_weights_of
from convatlas.runs.checkpoint import read_checkpoint, steps_in
from convatlas.runs.run import RunError
from made_images import save_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with batch normalisation and averaged weights, four steps on images in a folder."""
    root = tmp_path_factory.mktemp("averages")
    for name in ("a", "b"):
        save_images(root / "data" / name, 5)
    return convatlas.train(
        "resnet20_cifar",
        data=f"folder:{root / 'data'}",
        out=root,
        recipe="modern",
        input_size=32,
        workers=0,
        save_every=1,
        keep=9,
        epochs=2,
        batch_size=4,
        ema_decay=0.5,
    ).folder


def state(run: Path, step: int, group: str = "weights") -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / f"step-{step}").tensors(group)


def assert_same(net: nn.Module, wanted: dict[str, torch.Tensor]) -> None:
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=0)


def test_weights_of_checkpoints(run: Path) -> None:
    steps = steps_in(run / "checkpoints")
    assert steps == [1, 2, 3, 4]
    assert_same(load_weights_of(run, "raw"), state(run, 4))
    assert_same(load_weights_of(run, "ema"), state(run, 4, "average"))
    assert_same(load_weights_of(run), state(run, 4, "average"))  # What the recipe ends with.
    assert_same(load_weights_of(run, "step:2"), state(run, 2))


def test_the_mean_of_snapshots(run: Path) -> None:
    notes: list[str] = []
    net = load_weights_of(run, "snapshots:3", note=notes.append)
    assert not net.training
    found, states = net.state_dict(), [state(run, step) for step in (2, 3, 4)]
    for name, _ in net.named_parameters():
        mean = sum(each[name] for each in states) / 3
        torch.testing.assert_close(found[name], mean, rtol=1e-6, atol=1e-7)
    (results,) = notes
    layers = sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
    assert results == (
        "weights are the mean of those after steps 2, 3, 4; statistics of "
        f"{layers} normalisations estimated again on training images"
    )
    mean_of_statistics = sum(each["stem.norm.running_mean"] for each in states) / 3
    assert not torch.equal(found["stem.norm.running_mean"], mean_of_statistics)


def test_estimated_statistics_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 2))
    batches = [torch.randn(8, 3, 4, 4) * 3 + 2 for _ in range(3)]
    assert estimate_norms(net, batches) == 1
    norm: Any = net[0]
    every = torch.stack(batches)
    torch.testing.assert_close(norm.running_mean, every.mean(dim=(1, 3, 4)).mean(dim=0))
    torch.testing.assert_close(norm.running_var, every.transpose(1, 2).flatten(2).var(dim=2).mean(dim=0))
    assert (norm.momentum, net.training, norm.training) == (0.3, False, False)


def test_a_network_without_normalisation() -> None:
    def batches() -> Any:
        raise AssertionError("no batch is needed")
        yield

    assert estimate_norms(nn.Linear(2, 2), batches()) == 0


def test_average_of_weights() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([2.0, 4.0]), "n": torch.tensor(5)},
    ]
    mean = average_weights(states)
    assert mean["w"].tolist() == [1.5, 3.0]
    assert (mean["w"].dtype, int(mean["n"])) == (torch.float32, 5)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        pytest.param([], "no weights to average", id="none"),
        pytest.param([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}], "'a' is not the same", id="names"),
        pytest.param([{"a": torch.zeros(1)}, {"a": torch.zeros(2)}], "'a' is not the same", id="shapes"),
    ],
)
def test_weights_that_do_not_go_together(states: list[dict[str, torch.Tensor]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_weights(states)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        pytest.param("best", "`weights`='best'; expected final, ema, raw, snapshots", id="unknown"),
        pytest.param("snapshots:x", "`weights`='snapshots:x'; expected final", id="no number"),
        pytest.param("snapshots:7", r"has 4 checkpoints \(1, 2, 3, 4\)", id="too many"),
        pytest.param("step:9", "has no checkpoint of step 9; it has 1, 2, 3, 4", id="no such step"),
    ],
)
def test_weights_that_are_not_there(run: Path, weights: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_weights_of(run, weights)


def test_a_run_without_an_average(lenet_run: Path) -> None:
    with pytest.raises(RunError, match="its recipe keeps no moving average"):
        load_weights_of(lenet_run, "ema")


def test_no_run() -> None:
    with pytest.raises(RunError, match="efficientnet_lite0: no such run folder"):
        load_weights_of("efficientnet_lite0", "ema")
