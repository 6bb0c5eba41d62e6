"""What parity tests share: peers with random numbers everywhere, and what they prediction."""

import torch
from torch import nn


@torch.no_grad()
def randomise_norms(net: nn.Module, low: float = 0.5, high: float = 1.5) -> nn.Module:
    """Gives every batch normalisation other scales and statistics than a fresh one has; evaluation mode.

    Args:
        net: changed in place.
        low: smallest scale; below 1 in long residual networks, whose signal would grow out of range.
        high: largest scale.
    """
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(low, high)
            layer.bias.uniform_(-0.2, 0.3)
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return net.eval()


@torch.no_grad()
def randomise(net: nn.Module) -> nn.Module:
    """Also draws every weight by He's rule, so that the image reaches the logits."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                layer.bias.normal_(std=0.1)
    return randomise_norms(net)


def peer_outputs(peer: nn.Module, x: torch.Tensor, modules: list[str]) -> list[torch.Tensor]:
    """What the named modules, and then the whole, prediction."""
    maps: list[torch.Tensor] = []
    for path in modules:
        peer.get_submodule(path).register_forward_hook(lambda _m, _x, y: maps.append(y.clone()))
    logits = peer(x)
    return [*maps, logits]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def assert_same_outputs(net: nn.Module, peer: nn.Module, x: torch.Tensor, modules: list[str]) -> None:
    """The network's stages are what the peer's named modules prediction, and the logits are the peer's."""
    expected = peer_outputs(peer, x, modules)
    outputs = [*net.forward_stages(x), net(x)]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert theirs.std() > 1e-3
        assert relative(ours, theirs) <= 1e-4
