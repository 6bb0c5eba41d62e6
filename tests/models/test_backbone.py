"""A network of the atlas as the backbone of torchvision's detectors."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from convatlas import create_model


class Pyramid(nn.Module):
    """Maps of strides 8, 16 and 32, brought to the same channels from the top down."""

    def __init__(self, name: str, out_indices: tuple[int, ...], out_channels: int = 16) -> None:
        super().__init__()
        self.body = create_model(name, features_only=True, out_indices=out_indices)
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn(OrderedDict((str(i), feature) for i, feature in enumerate(self.body(x))))


@pytest.mark.parametrize(
    ("name", "out_indices"),
    [
        pytest.param("resnet18", (2, 3, 4), id="resnet18"),
        pytest.param("mobilenet_v2_100", (3, 5, -1), id="mobilenet_v2_100"),
    ],
)
def test_feature_pyramid(name: str, out_indices: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = Pyramid(name, out_indices)
    maps = net(torch.randn(2, 3, 64, 96))
    strides = net.body.feature_info.reduction()
    assert [tuple(each.shape) for each in maps.values()] == [(2, 16, 64 // s, 96 // s) for s in strides]
    sum(each.square().mean() for each in maps.values()).backward()
    without = [key for key, parameter in net.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_detector_learns_a_step() -> None:
    torch.manual_seed(0)
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    detector = RetinaNet(
        Pyramid("resnet18", (2, 3, 4)), num_classes=2, anchor_generator=anchors, min_size=64, max_size=64
    )
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}] * 2
    optimiser = torch.optim.Adam(detector.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = sum(detector(images, targets).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    detector.eval()
    with torch.no_grad():
        found = detector(images)
    assert {"boxes", "scores", "labels"} <= found[0].keys()
