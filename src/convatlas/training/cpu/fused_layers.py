"""Layers of a training step that a CPU computes at once: normalisation, a block's sum, and activation.

Half of a step of a network like MobileNet is spent on carrying maps between memory and processor: batch
normalisation and its activation read and write each of them thirteen times, forward and backward, where eight
times do.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.preact import NormAct
from convatlas.blocks.residual import BasicBlock, Bottleneck
from convatlas.training.cpu.bf16_conv import Bf16SafeConv2d
from convatlas.training.cpu.depthwise import DepthwiseConv2d
from convatlas.training.cpu.fused_norm import Act, FusedNorm
from convatlas.training.cpu.library import LAST
from convatlas.training.cpu.winograd import WinogradConv2d


def has_norms(net: nn.Module) -> bool:
    """Whether a network has what `fuse` is for."""
    return any(type(layer) in (nn.BatchNorm2d, FusedNorm) for layer in net.modules())


def fuse(net: nn.Module) -> None:
    """Lets a network compute normalisations, with activations behind them, by `library`.

    Where that does not fit (another device, type or layout, evaluation, a tracer), layers do what torch's do.

    Args:
        net: its layers are changed in place; it still saves, loads, prints and answers as before.
    """
    for layer in net.modules():
        layer.__class__ = _FUSED.get(type(layer), type(layer))


def spare_copies(net: nn.Module) -> None:
    """Rids activations in place of the copy of their input that torch keeps for the backward pass.

    ReLU6 needs only what comes out of it, and SiLU is faster out of place: the numbers are the same.

    Args:
        net: its layers are changed in place; it still saves, loads and answers as before.
    """
    for layer in net.modules():
        if type(layer) in _SPARING and layer.inplace:
            layer.__class__ = _SPARING[type(layer)]


def part(net: nn.Module) -> None:
    """Undoes `fuse`, `spare_copies`, `make_bf16_safe` and the replacement of convolutions.

    Tools that know layers by their type may come now.

    Args:
        net: its layers are changed in place.
    """
    for layer in net.modules():
        layer.__class__ = _PLAIN.get(type(layer), type(layer))


class _SparingReLU6(nn.ReLU6):
    """ReLU6 in place, whose backward pass looks at its output."""

    def forward(self, input: Tensor) -> Tensor:
        # Tracers show tensors of their own kind, and get torch's function.
        if type(input) is Tensor and input.requires_grad and torch.is_grad_enabled():
            return _ReLU6.apply(input)  # pyright: ignore[reportReturnType]
        return super().forward(input)


class _SparingSiLU(nn.SiLU):
    """SiLU that is told to work in place, and does not."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.silu(input)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        y = x.clamp_(0.0, 6.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # Where the output is 0 or 6, the input was not between them.
        return torch.ops.aten.hardtanh_backward(grads[0], y, 0.0, 6.0)


class _Sequence(nn.Sequential):
    """Layers one after the other; a normalisation and the activation behind it count as one."""

    def forward(self, input: Tensor) -> Tensor:
        is_done = False
        for layer, behind in itertools.zip_longest(self, list(self)[1:]):
            if is_done:
                is_done = False
            elif (
                type(layer) is FusedNorm
                and type(behind) in ACTS
                and layer.fits(input)
                and not (_is_watched(layer) or _is_watched(behind))
            ):
                input = layer.activated(input, ACTS[type(behind)])
                is_done = True
            else:
                input = layer(input)
        return input

    def _get_name(self) -> str:
        return _PLAIN[type(self)].__name__


class _FusedSequential(_Sequence): ...


class _FusedConvNormAct(_Sequence, ConvNormAct): ...


class _FusedNormAct(_Sequence, NormAct): ...


class _FusedBasicBlock(BasicBlock):
    """A residual block whose last normalisation takes the shortcut and the activation along."""

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        if not _ends_in_norm(self, self.conv2):
            return super().forward(x)
        return _add(self.conv2, self.conv1(x), self.shortcut(x), self.act)

    def _get_name(self) -> str:
        return _PLAIN[type(self)].__name__


class _FusedBottleneck(Bottleneck):
    """The same of three convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        if not _ends_in_norm(self, self.conv3):
            return super().forward(x)
        return _add(self.conv3, self.conv2(self.conv1(x)), self.shortcut(x), self.act)

    def _get_name(self) -> str:
        return _PLAIN[type(self)].__name__


def _ends_in_norm(block: BasicBlock | Bottleneck, last: ConvNormAct) -> bool:
    """Whether a residual branch ends in a normalisation that can take the rest of the block along."""
    return (
        block.training
        and block.squeeze is None
        and block.drop_path.drop_rate == 0.0
        and type(block.act) in ACTS
        and type(last) is _FusedConvNormAct
        and [type(layer) for layer in last][1:] == [FusedNorm]
        and not any(_is_watched(layer) for layer in (last, last.norm, block.drop_path, block.act))
    )


def _add(last: ConvNormAct, y: Tensor, shortcut: Tensor, act: nn.Module) -> Tensor:
    """What a residual block makes of what comes before its last convolution."""
    norm = last.norm
    assert isinstance(norm, FusedNorm)
    y = last.conv(y)
    if norm.fits(y) and (shortcut.shape, shortcut.dtype) == (y.shape, y.dtype):
        return norm.activated(y, ACTS[type(act)], shortcut.contiguous(memory_format=LAST))
    return act(norm(y) + shortcut)


_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FusedNorm,
    nn.Sequential: _FusedSequential,
    ConvNormAct: _FusedConvNormAct,
    NormAct: _FusedNormAct,
    BasicBlock: _FusedBasicBlock,
    Bottleneck: _FusedBottleneck,
}
_SPARING: dict[type[nn.Module], type[Any]] = {nn.ReLU6: _SparingReLU6, nn.SiLU: _SparingSiLU}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    changed: plain for plain, changed in (_FUSED | _SPARING).items()
} | {
    WinogradConv2d: nn.Conv2d,
    DepthwiseConv2d: nn.Conv2d,
    Bf16SafeConv2d: nn.Conv2d,
}

ACTS: dict[type[Any], Act] = {
    nn.ReLU: Act(1, 0.0, math.inf),
    nn.ReLU6: Act(1, 0.0, 6.0),
    _SparingReLU6: Act(1, 0.0, 6.0),
    nn.SiLU: Act(3),
    _SparingSiLU: Act(3),
}


def _is_watched(layer: nn.Module) -> bool:
    """Whether somebody waits for the layer to be called."""
    return bool(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    )
