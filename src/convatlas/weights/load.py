"""Puts weights into a network, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convatlas.weights.errors import WeightsError
from convatlas.weights.keymap import find_table

# Counts the batches that batch normalisation has seen; it matters to no result at a fixed momentum, and
# files older than torch 0.4.1 lack it.
OPTIONAL = "num_batches_tracked"


def load_foreign(net: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Copies another library's weights into our network, in place.

    Keys go through the key table for `net.name`. A weight of the same numbers in another arrangement is
    reshaped: a 1x1 convolution and a linear layer, or a linear layer over a flattened map and the
    convolution that covers it.

    Args:
        net: one of our networks, with its `name`.
        state_dict: the other library's.
        source: "torchvision", "timm" or "efficientnet_pytorch".

    Raises:
        WeightsError: no table, or a key or shape that does not fit; the message lists them all, and the
            network is as it was.
    """
    name = _name_of(net)
    table = find_table(name, source)
    renamed: dict[str, Tensor] = {}
    unexpected: list[str] = []
    origin: dict[str, str] = {}
    for key, value in state_dict.items():
        if table.drops(key):
            continue
        ours = table.our_key(key)
        if ours is None:
            unexpected.append(f"{key} {_shape(value)}, which {table.file} does not map")
        elif ours in renamed:
            unexpected.append(f"{key}, which {table.file} maps to {ours} as it does {origin[ours]}")
        else:
            renamed[ours] = value
            origin[ours] = key
    _load(net, renamed, f"{name}: weights from {source}", origin, unexpected, reshape=True)


def load_own(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copies weights that convatlas wrote into a network, in place.

    Raises:
        WeightsError: a key or shape does not fit; the message lists them all, and the network is as it was.
    """
    title = f"{getattr(net, 'name', '') or type(net).__name__}: weights"
    _load(net, state_dict, title, {}, [], reshape=False)


def _name_of(net: nn.Module) -> str:
    name = getattr(net, "name", "")
    if not isinstance(name, str) or not name:
        raise WeightsError(
            f"the {type(net).__name__} has no `name`, by which key tables are found; "
            "build it with `create_model`, or set `net.name`"
        )
    return name


def _load(
    net: nn.Module,
    given: Mapping[str, Tensor],
    title: str,
    origin: Mapping[str, str],
    unexpected: list[str],
    *,
    reshape: bool,
) -> None:
    """Checks every key and shape, then copies.

    Args:
        net: takes the weights.
        given: weights by our keys.
        title: how a message begins.
        origin: their key for each of ours, where the two differ.
        unexpected: lines on keys that could not be renamed.
        reshape: whether another arrangement of the same numbers will do.
    """
    wanted = net.state_dict(keep_vars=True)
    missing = [f"{key} {_shape(value)}" for key, value in wanted.items() if key not in given]
    missing = [line for line in missing if OPTIONAL not in line]
    unexpected = list(unexpected)
    differing: list[str] = []
    for key, value in given.items():
        label = f"{origin[key]} -> {key}" if origin.get(key, key) != key else key
        if key not in wanted:
            unexpected.append(f"{label} {_shape(value)}")
        elif not _fits(value, wanted[key], reshape):
            differing.append(f"{label}: given {_shape(value)}, the network has {_shape(wanted[key])}")
    unexpected = [line for line in unexpected if OPTIONAL not in line]
    if missing or unexpected or differing:
        raise WeightsError(_report(title, missing, unexpected, differing))
    if any(value.is_meta for value in wanted.values()):
        raise WeightsError(f"{title}: the network is on the meta device, where there is nothing to copy to")
    with torch.no_grad():
        for key, value in given.items():
            if key in wanted:
                wanted[key].copy_(value.reshape(wanted[key].shape))


def _fits(given: object, wanted: Tensor, reshape: bool) -> bool:
    if not isinstance(given, Tensor) or given.is_floating_point() != wanted.is_floating_point():
        return False
    return given.shape == wanted.shape or (reshape and _same_layer(given.shape, wanted.shape))


def _same_layer(one: torch.Size, other: torch.Size) -> bool:
    """Whether two weights are one layer: they differ by dimensions of 1, or one is the other flattened."""
    if one.numel() != other.numel():
        return False
    if not one or not other:
        return True
    squeezed = [[size for size in shape[1:] if size != 1] for shape in (one, other)]
    flattened = {len(one), len(other)} == {2, 4}
    return one[0] == other[0] and (squeezed[0] == squeezed[1] or flattened)


def _report(title: str, missing: list[str], unexpected: list[str], differing: list[str]) -> str:
    parts = {
        "missing (the network has them, the weights do not)": missing,
        "unexpected (the weights have them, the network does not)": unexpected,
        "of another shape or type": differing,
    }
    counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(differing)} of another shape"
    lines = [f"{title} do not fit: {counts}; nothing was loaded"]
    for heading, entries in parts.items():
        if entries:
            lines.append(f"  {heading}:")
            lines.extend(f"    {entry}" for entry in entries)
    return "\n".join(lines)


def _shape(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"({type(value).__name__}, not a tensor)"
    return str(tuple(value.shape)) if value.is_floating_point() else f"{tuple(value.shape)} {value.dtype}"
