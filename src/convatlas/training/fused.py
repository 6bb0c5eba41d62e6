"""Layers of a training step that a CPU computes at once: normalisation and activation.

Half of a step of a network like MobileNet is spent on carrying maps between memory and processor: batch
normalisation and its activation read and write each of them thirteen times, forward and backward, where eight
times do.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.preact import NormAct
from convatlas.training.depthwise import DepthwiseConv2d
from convatlas.training.kernels import HALF, LAST, is_step, library, place
from convatlas.training.winograd import WinogradConv2d


@dataclasses.dataclass(frozen=True)
class Act:
    """An activation as `vector.h` numbers them.

    Attributes:
        kind: 0 for none, 1 for clipping, 3 for SiLU.
        low: the least value of clipping.
        high: the largest one.
    """

    kind: int
    low: float = 0.0
    high: float = 0.0


NO_ACT = Act(0)


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
        if type(layer) is nn.ReLU6 and layer.inplace:
            layer.__class__ = _SparingReLU6
        elif type(layer) is nn.SiLU:
            layer.inplace = False


def part(net: nn.Module) -> None:
    """Takes back what `fuse`, `spare_copies` and replacements of convolutions made of layers.

    Tools that know layers by their type may come now.

    Args:
        net: its layers are changed in place.
    """
    for layer in net.modules():
        layer.__class__ = _PLAIN.get(type(layer), type(layer))


class FusedNorm(nn.BatchNorm2d):
    """Batch normalisation, whose training steps on a CPU take an activation along."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises x (B, C, H, W)."""
        return self.activated(input, NO_ACT) if self.fits(input) else super().forward(input)

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` can do."""
        return (
            self.training
            and is_step(x)
            and x.shape[1] == self.num_features
            and x.numel() > self.num_features  # torch says what is wrong with a single value
            and self.momentum is not None
            and all(
                t is None or (type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32)
                for t in (self.weight, self.bias, self.running_mean, self.running_var)
            )
        )

    def activated(self, x: Tensor, act: Act) -> Tensor:
        """Normalises x (B, C, H, W), which fits, and applies an activation."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        y: Any = _Normalised.apply(x, self.weight, self.bias, self, act)
        return y

    def _get_name(self) -> str:
        return _PLAIN[type(self)].__name__


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: FusedNorm, act: Act
    ) -> Tensor:
        y = torch.empty_like(x)
        moments = torch.empty(3, x.shape[1], dtype=torch.float32)
        library().train_norm_forward(
            *(place(x), place(y), *_matrix(x), place(weight), place(bias), norm.eps),
            *(act.kind, act.low, act.high, place(moments), norm.momentum),
            *(place(norm.running_mean), place(norm.running_var), torch.get_num_threads()),
        )
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.act = act
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, moments = ctx.saved_tensors
        grad = grads[0].to(x.dtype).contiguous(memory_format=LAST)
        dx = torch.empty_like(x)
        dweight, dbias = (None if t is None else torch.empty_like(t) for t in (weight, bias))
        library().train_norm_backward(
            *(place(grad), place(x), place(dx), *_matrix(x), place(weight), place(bias)),
            *(ctx.act.kind, ctx.act.low, ctx.act.high, place(moments)),
            *(place(dweight), place(dbias), torch.get_num_threads()),
        )
        return dx, dweight, dbias, None, None


class _SparingReLU6(nn.ReLU6):
    """ReLU6 in place, whose backward pass looks at its output."""

    def forward(self, input: Tensor) -> Tensor:
        # Tracers show tensors of their own kind, and get torch's function.
        if type(input) is Tensor and input.requires_grad and torch.is_grad_enabled():
            return _ReLU6.apply(input)  # pyright: ignore[reportReturnType]
        return super().forward(input)


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


_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FusedNorm,
    nn.Sequential: _FusedSequential,
    ConvNormAct: _FusedConvNormAct,
    NormAct: _FusedNormAct,
}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {fused: plain for plain, fused in _FUSED.items()} | {
    _SparingReLU6: nn.ReLU6,
    WinogradConv2d: nn.Conv2d,
    DepthwiseConv2d: nn.Conv2d,
}

ACTS: dict[type[Any], Act] = {
    nn.ReLU: Act(1, 0.0, math.inf),
    nn.ReLU6: Act(1, 0.0, 6.0),
    _SparingReLU6: Act(1, 0.0, 6.0),
    nn.SiLU: Act(3),
}


def _is_watched(layer: nn.Module) -> bool:
    """Whether somebody waits for the layer to be called."""
    return bool(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    )


def _matrix(x: Tensor) -> tuple[int, int, int]:
    """Whether it is in half precision; pixels; channels."""
    return int(x.dtype == HALF), x.numel() // x.shape[1], x.shape[1]
