"""Batch normalisation of a training step on a CPU, with what is added and the activation behind, as one."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convatlas.training.cpu.library import HALF, LAST, is_step, library, place


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

    def activated(self, x: Tensor, act: Act, added: Tensor | None = None) -> Tensor:
        """Normalises x (B, C, H, W), which fits, adds what is like it, and applies an activation."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        y: Any = _Normalised.apply(x, self.weight, self.bias, self, act, added)
        return y

    def _get_name(self) -> str:
        return nn.BatchNorm2d.__name__


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        norm: FusedNorm,
        act: Act,
        added: Tensor | None,
    ) -> Tensor:
        y = torch.empty_like(x)
        moments = torch.empty(3, x.shape[1], dtype=torch.float32)
        library().train_norm_forward(
            *(place(x), place(added), place(y), *_matrix(x), place(weight), place(bias), norm.eps),
            *(act.kind, act.low, act.high, place(moments), norm.momentum),
            *(place(norm.running_mean), place(norm.running_var), torch.get_num_threads()),
        )
        ctx.save_for_backward(x, weight, bias, moments, added)
        ctx.act = act
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, moments, added = ctx.saved_tensors
        grad = grads[0].to(x.dtype).contiguous(memory_format=LAST)
        dx = torch.empty_like(x)
        dadded = None if added is None else torch.empty_like(x)
        dweight, dbias = (None if t is None else torch.empty_like(t) for t in (weight, bias))
        library().train_norm_backward(
            *(place(grad), place(x), place(added), place(dx), place(dadded)),
            *(*_matrix(x), place(weight), place(bias)),
            *(ctx.act.kind, ctx.act.low, ctx.act.high, place(moments)),
            *(place(dweight), place(dbias), torch.get_num_threads()),
        )
        return dx, dweight, dbias, None, None, dadded


def _matrix(x: Tensor) -> tuple[int, int, int]:
    """Whether it is in half precision; pixels; channels."""
    return int(x.dtype == HALF), x.numel() // x.shape[1], x.shape[1]
