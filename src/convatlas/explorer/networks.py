"""Networks built and sized as a query asks; the latest are kept."""

from __future__ import annotations

import functools

import torch
from torch import nn

from convatlas.models.registry import create_model
from convatlas.sizing import Sheet, size

from .options import overrides_of
from .settings import Settings

_KEPT = 12


def build(settings: Settings) -> nn.Module:
    """The network, without storage; input size, batch and dtype do not matter for it.

    Raises:
        ValueError: if an option does not exist or is out of range.
    """
    chans, *_ = settings.input_size
    return _built(Settings(settings.network, (chans, 1, 1), options=settings.options))


@functools.lru_cache(maxsize=_KEPT)
def _built(settings: Settings) -> nn.Module:
    with torch.device("meta"):
        return create_model(
            settings.network, in_chans=settings.input_size[0], **overrides_of(settings)
        ).eval()


@functools.lru_cache(maxsize=_KEPT)
def sized(settings: Settings) -> Sheet:
    """Its sheet.

    Raises:
        ValueError: if an option or the input does not fit.
    """
    return size(
        build(settings),
        settings.input_size,
        batch_size=settings.batch,
        dtype=getattr(torch, settings.dtype),
        optimizer=settings.optimizer,
    )
