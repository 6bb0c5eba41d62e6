"""The head of fully connected layers."""

import pytest
import torch
from torch import nn

from convatlas.blocks.mlp_head import MlpHead


def inputs_of(head: MlpHead, names: list[str], x: torch.Tensor) -> list[torch.Tensor]:
    """What arrives at the named layers in one forward pass."""
    seen: list[torch.Tensor] = []
    hooks = [
        head.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        for name in names
    ]
    head(x)
    for hook in hooks:
        hook.remove()
    return seen


def open_head(drop_first: bool) -> MlpHead:
    """A head whose ReLUs let everything through, so that a zero at a layer comes from dropout."""
    head = MlpHead(16, 5, map_size=4, hidden=(256, 256), drop_rate=0.5, drop_first=drop_first)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.01)
            nn.init.ones_(layer.bias)
    return head


@pytest.mark.parametrize(
    ("drop_first", "dropped"),
    [
        pytest.param(False, [0.0, 0.5, 0.5], id="2012-after"),
        pytest.param(True, [0.5, 0.5, 0.0], id="2014-before"),
    ],
)
def test_where_dropout_stands(drop_first: bool, dropped: list[float]) -> None:
    torch.manual_seed(0)
    head = open_head(drop_first)
    seen = inputs_of(head, ["hidden.fc1", "hidden.fc2", "fc"], torch.ones(32, 16, 4, 4))
    shares = [(x == 0).float().mean().item() for x in seen]
    assert shares == pytest.approx(dropped, abs=0.02)
    head.eval()
    seen = inputs_of(head, ["hidden.fc1", "hidden.fc2", "fc"], torch.ones(32, 16, 4, 4))
    assert all((x != 0).all() for x in seen)


def test_arithmetic_at_the_size_of_the_paper() -> None:
    head = MlpHead(3, 5, map_size=2, hidden=(7, 6)).eval()
    x = torch.randn(4, 3, 2, 2)
    hidden = x.flatten(1)
    for layer in (head.hidden.fc1, head.hidden.fc2):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(head(x, pre_logits=True), hidden)
    torch.testing.assert_close(head(x), hidden @ head.fc.weight.T + head.fc.bias)


def test_larger_maps_are_averaged() -> None:
    head = MlpHead(3, 5, map_size=2, hidden=(7,)).eval()
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(head(x.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)), head(x))


def test_no_hidden_layer_is_a_linear_classifier() -> None:
    head = MlpHead(3, 5, map_size=2, hidden=(), drop_rate=0.0)
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(head(x), head.fc(x.flatten(1)))
    assert head.hidden_size == 12


def test_reset() -> None:
    head = MlpHead(3, 5, map_size=2, hidden=(7, 6)).eval()
    head.reset(9)
    assert head(torch.randn(2, 3, 2, 2)).shape == (2, 9)
    head.reset(0)
    assert head(torch.randn(2, 3, 2, 2)).shape == (2, 6)
    with pytest.raises(ValueError, match="`global_pool`='max': this head flattens its map"):
        head.reset(5, "max")
