"""Kernels as tiles: their colours, their order, and what cannot be shown."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convatlas
from convatlas.cli.filters import filters_command
from convatlas.drawing import Figure
from convatlas.plots.filters import draw_filters
from made_figures import faults, texts
from made_images import weights_file


def sheet(figure: Figure) -> np.ndarray[Any, Any]:
    """The pixels of the figure's only image."""
    (data,) = re.findall(r'href="data:image/png;base64,([^"]+)"', figure.svg)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def test_a_kernel_of_colours_is_shown_in_them() -> None:
    conv = nn.Conv2d(3, 2, 2)
    conv.weight.data.zero_()
    conv.weight.data[0, 0, 0, 0] = 2.0  # red
    conv.weight.data[0, 1, 0, 1] = -2.0  # no green: magenta
    conv.weight.data[1, 2] = 0.5  # blue, on its own scale
    figure = draw_filters(nn.Sequential(conv))
    pixels = sheet(figure)
    side = (pixels.shape[1] - 4) // 4  # px of the image for one of the kernel's
    assert pixels[side // 2, side // 2].tolist() == [255, 128, 128]
    assert pixels[side // 2, side * 3 // 2].tolist() == [128, 0, 128]
    assert pixels[-1, side // 2].tolist() == [128, 128, 128]
    assert pixels[side // 2, -side // 2].tolist() == [128, 128, 255]
    assert "2 kernels 3×2×2 of 0" in " ".join(texts(figure))
    assert faults(figure) == []


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize(
    ("name", "layer", "words"),
    [
        pytest.param("alexnet", None, "96 kernels 3×11×11", id="colours"),
        pytest.param("lenet5", None, "6 kernels 1×5×5", id="one channel"),
        pytest.param("resnet20_cifar", "stages.2.2.conv2.conv", "64 kernels 64×3×3", id="deep"),
        pytest.param("mobilenet_v1_025", "stages.0.0.depthwise.conv", "8 kernels 1×3×3", id="depthwise"),
    ],
)
def test_layers_of_networks(name: str, layer: str | None, words: str, theme: str) -> None:
    net = convatlas.create_model(name)
    figure = draw_filters(net, layer=layer, title="T", theme=theme)
    assert words in " ".join(texts(figure))
    assert faults(figure) == []
    assert figure.svg == draw_filters(net, layer=layer, title="T", theme=theme).svg


def test_what_has_no_kernels() -> None:
    with pytest.raises(ValueError, match="Linear has no convolution over two axes"):
        draw_filters(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"unknown convolution 'stem\.con'; nearest: stem\.conv"):
        draw_filters(convatlas.create_model("convnet_cs231n"), layer="stem.con")
    with pytest.raises(ValueError, match="is on the meta device"):
        draw_filters(nn.Conv2d(3, 4, 3, device="meta"))
    with pytest.raises(ValueError, match="unknown theme 'lite'; nearest: light"):
        draw_filters(nn.Conv2d(3, 4, 3), theme="lite")
    broken = nn.Conv2d(3, 4, 3)
    broken.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="weights are NaN or infinite"):
        draw_filters(broken)


def test_kernels_of_zeros_are_grey() -> None:
    conv = nn.Conv2d(3, 1, 3)
    conv.weight.data.zero_()
    assert (sheet(draw_filters(conv)) == 128).all()


def test_the_command(tmp_path, capsys) -> None:
    weights_file(tmp_path / "w.safetensors")
    out = tmp_path / "kernels.svg"
    filters_command(str(tmp_path / "w.safetensors"), out=out, theme="dark")
    assert "12 kernels 3×3×3 of stem.conv" in out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(f"wrote {out} (")
    with pytest.raises(ValueError, match=r"figures are written as \.svg, \.png, \.pdf"):
        filters_command(str(tmp_path / "w.safetensors"), out=tmp_path / "kernels.gif")
