"""The verdict on made-up answers of either side, and what the answers cost, counted by hand."""

import pytest
import torch
from torch import nn

from convatlas.models.registry import create_model
from convatlas.studies.residual.fractal import Answers, Results, columns, settled

NOISE = (-0.5, 0.0, 0.5)


def results(alone_without: float, columns_with: tuple[float, float, float], whole: float) -> Results:
    """Three seeds: errors of the columns without drop-path, of each with it, and of the whole network."""
    return {
        False: [Answers((alone_without - noise,) * 3, 20.0, 20.0) for noise in NOISE],
        True: [Answers(tuple(c + noise for c in columns_with), whole - noise, whole) for noise in NOISE],
    }


def test_columns_share_weights_with_the_whole_network() -> None:
    net = create_model("fractalnet20_cifar", in_chans=1, widths=(4,) * 5)

    @torch.no_grad()
    def sums() -> list[float]:
        return [column.eval()(torch.ones(1, 1, 32, 32)).sum().item() for column in columns(net)]

    before = sums()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    after = sums()
    assert len(before) == 3
    assert all(a != b for a, b in zip(after, before, strict=True))


def test_settled_statistics_are_those_of_the_images() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, affine=False), nn.Dropout(0.5))
    images = torch.randn(8, 1, 4, 4)
    ready = settled(net, images, batch_size=8)
    assert not ready.training
    maps = net[0](images)
    norm = ready.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, maps.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, maps.var(dim=(0, 2, 3)))
    assert torch.equal(net[1].running_mean, torch.zeros(2)), "the network itself must be left as it was"


def test_a_network_without_columns() -> None:
    with pytest.raises(TypeError, match="`network` is a ResNetCifar; expected a FractalNet"):
        columns(create_model("resnet20_cifar"))
