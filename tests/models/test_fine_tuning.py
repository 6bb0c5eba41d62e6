"""A classifier that replaces another one begins at the loss of guessing, ln K, in every network."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas import create_model, find_card, list_models
from convatlas.blocks.mlp_head import MlpHead
from convatlas.models.network import Network


def with_real_heads(name: str) -> tuple[Network[Any], list[tuple[nn.Module, Tensor]]]:
    """The network on the meta device but for its classifiers, and what these are to score.

    What comes before a classifier has any scale, up to what trained networks without norms reach.
    """
    with torch.device("meta"):
        net = create_model(name, num_classes=find_card(name).num_classes)
    scored: list[tuple[nn.Module, Tensor]] = []
    for head in net.classifiers():
        if isinstance(head, MlpHead):
            head.hidden, head.pool = nn.Identity(), nn.Identity()
            shape: tuple[int, ...] = (8, head.hidden_size)
        elif head is net.head:
            shape = (8, net.num_features, 7, 7)
        else:
            shape = (8, head.num_features)
        head.to_empty(device="cpu")
        for tensor in (*head.parameters(), *head.buffers()):
            if tensor.is_floating_point():
                nn.init.normal_(tensor)
        scored.append((head, 10.0 * torch.randn(shape)))
    return net, scored


@pytest.mark.parametrize("name", list_models())
def test_the_first_loss_of_a_replaced_head_is_that_of_guessing(name: str) -> None:
    torch.manual_seed(0)
    net, scored = with_real_heads(name)
    assert len(scored) == 1 + len(getattr(net, "aux_heads", ()))
    for classes, (head, x) in itertools.product((2, 17), scored):
        if head is net.head:
            net.reset_classifier(classes)
        # What comes before an auxiliary classifier's last layer takes maps; the layer itself is looked at.
        logits = (head if head is net.head else head.fc).train()(x)
        assert logits.shape == (8, classes)
        loss = F.cross_entropy(logits, torch.arange(8) % classes)
        assert float(loss.detach()) == pytest.approx(math.log(classes), rel=0.05)
        loss.backward()
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)


@pytest.mark.parametrize("name", ["nin_cifar", "lenet5_1998", "lenet5", "resnet20_cifar"])
def test_a_replaced_head_learns(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(name)
    net.reset_classifier(3)
    chans, *_ = find_card(name).input_size
    x, y = torch.randn(6, chans, 32, 32), torch.arange(6) % 3
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses: list[float] = []
    for _ in range(12):
        loss = F.cross_entropy(net(x), y)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(3), rel=1e-4)
    assert losses[-1] < 0.98 * losses[0]


def test_a_network_from_scratch_begins_as_its_paper_says() -> None:
    torch.manual_seed(0)
    net = create_model("resnet18", num_classes=5)
    assert float(net.get_classifier().weight.detach().std()) > 0.01
