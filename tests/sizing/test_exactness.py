"""Parameters and MACs against PyTorch's own counts, on a sample of published models."""

import random
import warnings

import pytest
import timm
import torch
import torchvision
from timm.models import get_pretrained_cfg
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convatlas.sizing import size

# Large ones take long to build: of timm's models only those without such a word in their name are drawn.
LARGE = ("large", "huge", "giant", "gigantic", "xl", "xxl", "so400m", "enormous", "_b7", "_b6", "_b8",
"_l2", "160",
         "1024", "l_", "384", "448", "512", "nasnet", "152", "200", "269", "350", "420", "101", "x26",
         "h_", "7b")  # fmt: skip


def sample() -> list[str]:
    vision = [
        n for n in torchvision.models.list_models(module=torchvision.models) if not n.startswith("regnet")
    ]
    small = [n for n in timm.list_models() if not any(word in n for word in LARGE)]
    small = [n for n in small if (get_pretrained_cfg(n) or _NoConfig).input_size[1] <= 299]
    draw = random.Random(20190528)
    names = [f"torchvision/{n}" for n in draw.sample([n for n in vision if not n.endswith("_7gf")], 12)]
    return names + [f"timm/{n}" for n in draw.sample(small, 48)]


class _NoConfig:
    input_size = (3, 224, 224)


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    library, model = name.split("/", 1)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            net = timm.create_model(model)
            return net.eval(), tuple(net.default_cfg["input_size"])
        px = 299 if model == "inception_v3" else 224
        return torchvision.models.get_model(model).eval(), (3, px, px)


@pytest.mark.parametrize("name", sample())
def test_equals_pytorchs_counts(name: str) -> None:
    net, shape = build(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = net(torch.empty(1, *shape, device="meta"))
    sheet = size(net, shape)
    assert sheet.params == sum(p.numel() for p in net.parameters())
    assert sheet.macs == counter.get_total_flops() // 2
    assert sheet.output == tuple(out.shape)
