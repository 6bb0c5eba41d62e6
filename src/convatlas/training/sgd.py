"""Gradient descent with momentum, as a function of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def sgd_step(
    params: Sequence[Tensor],
    velocities: Sequence[Tensor],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Moves every parameter one step by Nesterov's rule, and forgets its gradient.

    The same numbers as `torch.optim.SGD(..., nesterov=True)` gives. That class imports torch's compiler
    when it is first used, which takes longer than LeNet-5 needs to learn half its epochs.

    Args:
        params: leaves with a `grad`.
        velocities: one for each parameter, zero at first; changed in place.
        lr: learning rate.
        momentum: share of the velocity that is kept.
        weight_decay: added to each gradient, times the parameter.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum", in the form of torch.
    """
    for p, velocity in zip(params, velocities, strict=True):
        if p.grad is None:
            continue
        grad = p.grad.add_(p, alpha=weight_decay)
        velocity.mul_(momentum).add_(grad)
        p.add_(grad.add_(velocity, alpha=momentum), alpha=-lr)
        p.grad = None
