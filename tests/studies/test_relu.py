"""Epochs read off made-up curves, the verdict on both sides, and the whole study on a few digits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from convatlas.data.sets import ImageSet
from convatlas.studies.learning.relu import Curves, FourLayers, epochs_to, raw_deviation
from convatlas.studies.run import run_study


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ((40.0, 20.0, 10.0), 2.0),  # half-way between the middles of epochs 2 and 3
        ((40.0, 15.0), 1.5),
        ((10.0, 5.0), 0.5),
        ((40.0, 30.0), 9.0),
        ((), 9.0),
    ],
    ids=["between", "on the spot", "in the first", "never", "diverged"],
)
def test_epochs_to_an_error(curve: tuple[float, ...], expected: float) -> None:
    assert epochs_to(curve, 15.0, budget=9) == expected


def falling(speed: float) -> tuple[float, ...]:
    """An error that is halved every `speed` epochs."""
    return tuple(90.0 * 0.5 ** (i / speed) for i in range(20))


def curves(relu: float, tanh: float) -> Curves:
    """Three seeds a little apart; the other learning rate is too slow for both."""
    noise = (0.9, 1.0, 1.1)
    return {
        ("ReLU", 0.1): [falling(relu * n) for n in noise],
        ("ReLU", 0.01): [falling(20.0) for _ in noise],
        ("tanh", 0.1): [falling(20.0) for _ in noise],
        ("tanh", 0.01): [falling(tanh * n) for n in reversed(noise)],
    }


@pytest.mark.parametrize("kind", ["ReLU", "tanh"])
def test_both_networks_have_the_same_layers(kind: str) -> None:
    net = FourLayers(kind, None, width=4, kernel_size=5, in_chans=1, num_classes=10)
    assert net(torch.randn(2, 1, 14, 14)).shape == (2, 10)
    # 5x5 filters: 1 to 4, 4 to 4 and 4 to 8 channels with biases, then 8 to 10.
    assert sum(p.numel() for p in net.parameters()) == 104 + 404 + 808 + 90
    kinds = {type(module).__name__ for module in net.modules()}
    assert ("ReLU" in kinds, "Tanh" in kinds) == (kind == "ReLU", kind == "tanh")


def test_the_papers_start_has_raw_px_and_small_weights() -> None:
    torch.manual_seed(0)
    net = FourLayers("tanh", 60.0, width=32, kernel_size=5, in_chans=1, num_classes=10)
    x = torch.randn(2, 1, 14, 14)
    stds = [p.detach().std().item() for p in net.parameters() if p.ndim == 4]
    assert stds == pytest.approx([0.01] * 3, rel=0.1)
    assert torch.allclose(net(x), net.fc(net.layers(60.0 * x).mean(dim=(2, 3))))


def test_deviation_of_raw_px() -> None:
    images = torch.tensor([0, 200, 0, 200], dtype=torch.uint8).view(2, 1, 1, 2)
    deviation = raw_deviation(ImageSet(images, torch.tensor([0, 1])))
    assert deviation == pytest.approx(100.0 * (4 / 3) ** 0.5)


SMALL: dict[str, Any] = {
    "data": "digits",
    "images": 200,
    "test_images": 40,
    "px": 8,
    "seeds": 1,
    "epochs": 2,
    "width": 4,
}


def test_a_rate_that_diverges_is_no_failure(tmp_path: Path) -> None:
    said: list[str] = []
    _, record = run_study("relu", out=tmp_path, grid=[1e30], log=said.append, **SMALL)
    assert any("learning rate 1e+30" in line for line in said)
    assert record["verdict"] == "no evidence at this budget"
    assert any("did not reach 25 %" in text for text in record["objections"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 0.0}, "`error`=0.0; expected between 0 and 100"),
        ({"kernel_size": 4}, "`kernel_size`=4; expected an odd number"),
        ({"grid": []}, r"`grid`=\[\]; expected learning rates above 0"),
    ],
    ids=["error", "kernel", "rates"],
)
def test_bad_knobs(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run_study("relu", out=tmp_path, **settings)
