"""The receptive field that a page shows against where gradients are, at random layers and positions."""

from __future__ import annotations

import json
import random
import re
from html import unescape
from typing import Any

import pytest
import torch
from torch import nn

from convatlas import create_model

NETS = {"resnet20_cifar": 32, "vgg11": 64, "nin_cifar": 32}


class _Mean(nn.Module):
    """In place of a maximum, which reads one px of its window only."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x)


def positive(net: nn.Module) -> nn.Module:
    """All weights positive, so that no two ways from a px cancel out."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, _Mean(module))
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
    return net.double().eval()


@pytest.mark.parametrize("name", NETS)
def test_shown_field_is_where_gradients_are(site: Any, name: str) -> None:
    """Px that strided layers skip apart: the field's first and last px inside the image have a gradient."""
    px = NETS[name]
    page = unescape(site.get(f"/networks/{name}?level=operations&input={px}").text)
    rows = re.findall(r'data-layer="([^":]+):\d+" data-rf="(\[.*?\]\])"', page)
    net = positive(create_model(name))
    kept: dict[str, torch.Tensor] = {}
    modules = dict(net.named_modules())
    convs = [(path, json.loads(rf)) for path, rf in rows if isinstance(modules.get(path), nn.Conv2d)]
    assert len(convs) > 5
    for path, _ in convs:
        modules[path].register_forward_hook(lambda _, __, out, path=path: kept.__setitem__(path, out))
    image = torch.ones(1, 3, px, px, dtype=torch.float64, requires_grad=True)
    net(image)
    draw = random.Random(name)
    for path, (size, stride, start, places) in draw.sample(convs, 6):
        at = [draw.randrange(each) for each in places]
        (grad,) = torch.autograd.grad(kept[path][0, :, at[0], at[1]].sum(), image, retain_graph=True)
        for axis in (0, 1):
            first = start[axis] + at[axis] * stride[axis]
            last = first + size[axis] - 1
            seen = grad[0].abs().sum((0, 2 - axis)).nonzero().flatten()
            low, high = int(seen[0]), int(seen[-1])
            assert low == first if first >= 0 else 0 <= low < stride[axis]
            assert high == last if last < px else px - stride[axis] <= high < px
