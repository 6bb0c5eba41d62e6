"""int8 with some layers in float: which are ranked worst, which mix is taken, and what the report says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convatlas
from convatlas.data.sets import ImageSet
from convatlas.engines.backend import EngineError
from convatlas.engines.export import export
from convatlas.engines.exported import open_exported
from convatlas.engines.mixed import LayerCost, describe_mix, mixes, names_in_float, rank_layers
from convatlas.predict.calibration import read_calibration
from made_images import TRANSFORM, save_images


class Fragile(nn.Module):
    """Its second convolution has one channel in each group of outlying size, which 8 bits cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        with torch.no_grad():
            # One map of huge, constant values, which the head does not read, sets the range of the others.
            self.first.weight[0], self.first.bias[0] = 0.0, 5e3
            self.second.weight[:, 0] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x)).relu()
        return self.head(self.third(x).relu_().mean((2, 3)))


@pytest.fixture(scope="module")
def fragile() -> nn.Module:
    return Fragile().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def program(net: nn.Module, batch: int, dynamic: bool) -> torch.export.ExportedProgram:
    sizes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    with torch.no_grad():
        return torch.export.export(net, (torch.zeros(batch, 3, 16, 16),), dynamic_shapes=sizes)


@pytest.mark.parametrize(("batch", "dynamic"), [(2, True), (1, False), (3, False)])
def test_the_layer_that_8_bits_cannot_hold_is_ranked_worst(
    fragile: nn.Module, images: Tensor, batch: int, dynamic: bool
) -> None:
    layers = rank_layers(program(fragile, batch, dynamic), images)
    assert layers[0].name == "conv2d_1"
    assert {layer.name: layer.kind for layer in layers} == {
        "conv2d": "conv2d",
        "conv2d_1": "conv2d",
        "conv2d_2": "conv2d",
        "linear": "linear",
    }
    # 256 px: 3 x 9 x 8, 4 x 9 x 8 and 8 x 9 x 8 products each; the head has 8 x 4.
    macs = {"conv2d": 216 * 256, "conv2d_1": 288 * 256, "conv2d_2": 576 * 256, "linear": 32}
    total = sum(macs.values())
    assert {each.name: each.macs for each in layers} == pytest.approx({n: m / total for n, m in macs.items()})
    assert [layer.effect for layer in layers] == sorted((layer.effect for layer in layers), reverse=True)


def test_the_effect_is_what_rounding_one_layer_does_to_the_margin(images: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    (layer,) = rank_layers(program(net, 1, False), images)
    weights, bias = (value.detach().double() for value in (net[1].weight, net[1].bias))
    changes, margins = [], []
    for image in images[:16].double():
        x = image.flatten()
        low, high = x.min(), x.max()
        step = (high - low) / 255
        rounded = ((x / step).round().clamp((low / step).round(), (low / step).round() + 255)) * step
        size = weights.abs().amax(1, keepdim=True) / 63
        before, after = weights @ x + bias, ((weights / size).round() * size) @ rounded + bias
        best = before.argmax()
        margins.append(before[best] - before[1 - best])
        changes.append((after - before)[best] - (after - before)[1 - best])
    wanted = torch.stack(changes).square().mean().sqrt() / torch.stack(margins).mean()
    assert layer.effect == pytest.approx(wanted.item(), rel=1e-3)


def test_mixes_double_to_half_of_the_layers() -> None:
    ranked: list[int] = []

    def rank() -> list[LayerCost]:
        ranked.append(1)
        return [LayerCost(f"conv2d_{number}", "conv2d", 1 / (number + 1), 0.1) for number in range(9)]

    found = mixes(rank)
    assert next(found) == () and not ranked
    assert [len(names_in_float(mix)) for mix in found] == [1, 2, 4]
    assert ranked == [1]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_file_keeps_the_worst_layers_in_float(
    fragile: nn.Module, images: Tensor, suffix: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime" if suffix == ".onnx" else "nncf")
    made = export(
        fragile, tmp_path / f"net{suffix}", (3, 16, 16), int8=True, calibration=images, tolerance=0.05
    )
    kept = names_in_float(made.layers)
    assert "conv2d_1" in kept and len(kept) <= 2
    said = describe_mix(made.layers)
    assert said.startswith("in float: conv2d_1 (effect ") and said.endswith("% of the multiply-adds")
    found = open_exported(made.path)(images[:4])
    expected = fragile(images[:4]).detach()
    assert (found - expected).abs().max() <= 0.06 * expected.abs().max()
    # Without the mix, the outlying channel takes all steps.
    with pytest.raises(EngineError, match="its logits differ by"):
        export(
            fragile, tmp_path / f"other{suffix}", (3, 16, 16), int8=True, calibration=images, tolerance=1e-6
        )


def test_an_engine_says_which_layers_stay_in_float(fragile: nn.Module, images: Tensor) -> None:
    pytest.importorskip("onnxruntime")
    options: dict[str, Any] = {
        "precision": "int8",
        "calibration": images,
        "tolerance": 0.05,
        "remember": False,
    }
    found = convatlas.optimize(fragile, (3, 16, 16), engines=("onnxruntime",), time_limit=300, **options)
    (result,) = (result for result in found.report.results if result.config.precision == "int8")
    assert not result.note
    assert result.layers[0].name == "conv2d_1" and result.layers[0].in_float
    assert "in float: conv2d_1 (effect" in str(found.report)


class TestCalibration:
    def test_a_data_set_by_its_name(self) -> None:
        from convatlas.data.transforms import Transform

        transform = Transform("digit", (1, 32, 32), (0.1,), (0.3,), "bilinear", 1.0)
        found = read_calibration("digits", transform, most=20)
        assert found.shape == (20, 1, 32, 32)
        assert found.dtype == torch.float32 and found.std() > 0.5

    def test_a_folder_for_each_class_and_a_source(self, tmp_path: Path) -> None:
        for name in ("cat", "dog"):
            save_images(tmp_path / name, 5)
        by_name = read_calibration(f"folder:{tmp_path}", TRANSFORM)
        source = convatlas.load_source(f"folder:{tmp_path}")
        assert by_name.shape == (len(source.train), 3, 32, 32)
        assert torch.equal(read_calibration(source, TRANSFORM), by_name)
        assert len(read_calibration(tmp_path, TRANSFORM, most=3)) == 3

    def test_other_channels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="`calibration`: digits has 1 channels; the network takes 3"):
            read_calibration("digits", TRANSFORM)

    def test_a_transform_that_is_a_function_is_refused(self) -> None:
        assert isinstance(convatlas.load_source("digits").train, ImageSet)
        with pytest.raises(ValueError, match="a data set needs a network whose `transform` is a"):
            read_calibration("digits", lambda image: torch.zeros(1, 8, 8))
