"""Outputs of a network: logits, or probabilities where the network ends in a softmax itself."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Outputs = Literal["auto", "logits", "probabilities"]
"""What a network gives; "auto" looks at the numbers."""


def check_outputs(outputs: str) -> None:
    """Refuses another word.

    Raises:
        ValueError: `outputs` is none of `Outputs`.
    """
    if outputs not in get_args(Outputs):
        choices = ", ".join(map(repr, get_args(Outputs)))
        raise ValueError(f"`outputs`={outputs!r}; allowed are {choices}")


def are_probabilities(outputs: Tensor) -> bool:
    """Whether each row is a distribution: no number below 0, and a sum of 1 within rounding.

    Args:
        outputs: (N, K).
    """
    if outputs.shape[-1] < 2 or not outputs.numel():
        return False
    close = 1e-4 if outputs.dtype in (torch.float32, torch.float64) else 1e-2
    sums = outputs.double().sum(dim=-1)
    return bool((outputs >= 0.0).all() and ((sums - 1.0).abs() <= close).all())


def to_logits(outputs: Tensor, kind: Outputs = "auto") -> Tensor:
    """Outputs as logits, whose softmax are the probabilities: the logarithm of what is a probability already.

    Args:
        outputs: (N, K).
        kind: what they are; "auto" for probabilities where `are_probabilities` says so.
    """
    if kind == "logits" or (kind == "auto" and not are_probabilities(outputs)):
        return outputs
    return outputs.float().clamp(min=torch.finfo(torch.float32).tiny).log()
