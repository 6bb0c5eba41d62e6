"""Puts weights into a network, all of them or none."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convatlas.weights.errors import WeightsError
from convatlas.weights.keymap import find_table
from convatlas.weights.source_model import (
    TRANSFORM_INPUT,
    check_layers,
    check_named,
    check_outputs,
    take_half_normalisation,
    warn_if_open,
)

# Counts the batches that batch normalisation has seen; it matters to no result at a fixed momentum, and
# files older than torch 0.4.1 lack it.
OPTIONAL = "num_batches_tracked"

# What DistributedDataParallel and DataParallel, and torch.compile, put before keys.
WRAPPERS = ("module.", "_orig_mod.")

# How the keys of side classifiers begin.
SIDE = "aux_heads."


@dataclasses.dataclass(frozen=True)
class Renamed:
    """Weights under our keys.

    Attributes:
        given: weights by our keys.
        origin: their key for each of our keys.
        unmapped: lines on keys that have no place in ours.
    """

    given: Mapping[str, Tensor]
    origin: Mapping[str, str]
    unmapped: tuple[str, ...] = ()


def load_foreign(
    net: nn.Module, weights: Mapping[str, Tensor] | nn.Module, source: str, *, model: str | None = None
) -> None:
    """Copies another library's weights into our network, in place.

    Keys go through the key table for `net.name`. A weight of the same numbers in another arrangement is
    reshaped: a 1x1 convolution and a linear layer, or a linear layer over a flattened map and the
    convolution that covers it. Publishers often leave side classifiers out: where the weights hold none at
    all, ours (`aux_heads`) keep their values.

    Some models have the same keys and pad or normalise otherwise, for example timm's `efficientnet_b0` and
    `tf_efficientnet_b0`. A state dict does not tell them apart: `model` does, or the model itself, whose
    layers and outputs are compared with ours. Without either, a warning lists what each model needs.

    Args:
        net: one of our networks, with its `name`.
        weights: the other library's state dict, or its model.
        source: "torchvision", "timm" or "efficientnet_pytorch".
        model: the other library's name of the model, for example "tf_efficientnet_b0".

    Raises:
        WeightsError: no table, a key or shape that does not fit (the message lists them all), or a model that
            needs other options than the network has; the network is as it was.
    """
    name = _name_of(net)
    theirs = weights if isinstance(weights, nn.Module) else None
    given = weights.state_dict() if isinstance(weights, nn.Module) else _unwrapped(weights)
    table = find_table(name, source, keys=list(given))
    renamed = rename_keys(name, given, source)
    before = {key: value.clone() for key, value in net.state_dict().items()} if theirs is not None else {}
    kept = side_classifiers(net, renamed)
    half = check_named(net, table, model) if model is not None else getattr(theirs, TRANSFORM_INPUT, False)
    copy_weights(net, renamed, f"{name}: weights from {source}", kept=kept, reshape=True)
    if theirs is not None:
        try:
            check_layers(net, theirs, table)
            check_outputs(net, theirs)
        except WeightsError:
            net.load_state_dict(before)
            raise
    elif model is None:
        warn_if_open(net, table)
    if half:
        take_half_normalisation(net, model or type(theirs).__name__)


def _unwrapped(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights without the prefixes that DataParallel and torch.compile put before every key; says so."""
    stripped = ""
    while state_dict:
        prefix = next((each for each in WRAPPERS if all(key.startswith(each) for key in state_dict)), None)
        if prefix is None:
            break
        stripped += prefix
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    if stripped:
        warnings.warn(f"every key begins with {stripped!r}, which was left out", stacklevel=3)
    return state_dict


def side_classifiers(net: nn.Module, weights: Renamed) -> frozenset[str]:
    """Keys of the network's side classifiers, where the weights hold no side classifier; else none."""
    if any(key.startswith(SIDE) for key in weights.given):
        return frozenset()
    return frozenset(key for key in net.state_dict() if key.startswith(SIDE))


def load_own(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copies weights that convatlas wrote into a network, in place.

    Raises:
        WeightsError: a key or shape does not fit; the message lists them all, and the network is as it was.
    """
    copy_weights(net, Renamed(state_dict, {}), f"{getattr(net, 'name', '') or type(net).__name__}: weights")


def rename_keys(name: str, state_dict: Mapping[str, Tensor], source: str) -> Renamed:
    """Brings another library's weights under the keys of our network `name`.

    Raises:
        WeightsError: there is no key table.
    """
    table = find_table(name, source, keys=list(state_dict))
    given: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unmapped: list[str] = []
    for key, value in state_dict.items():
        if table.drops(key):
            continue
        ours = table.our_key(key)
        if ours is None:
            unmapped.append(f"{key} {_shape(value)}, which {table.file} does not map")
        elif ours in given:
            unmapped.append(f"{key}, which {table.file} maps to {ours} as it does {origin[ours]}")
        else:
            given[ours] = value
            origin[ours] = key
    return Renamed(given, origin, tuple(unmapped))


def _name_of(net: nn.Module) -> str:
    name = getattr(net, "name", "")
    if not isinstance(name, str) or not name:
        raise WeightsError(
            f"the {type(net).__name__} has no `name`, by which key tables are found; "
            "build it with `create_model`, or set `net.name`"
        )
    return name


def copy_weights(
    net: nn.Module,
    weights: Renamed,
    title: str,
    *,
    kept: frozenset[str] = frozenset(),
    reshape: bool = False,
) -> None:
    """Checks every key and shape, then copies.

    Args:
        net: takes the weights.
        weights: by our keys.
        title: how a message begins.
        kept: our keys that keep the values they have.
        reshape: whether another arrangement of the same numbers will do.

    Raises:
        WeightsError: a key or shape does not fit, or the network has no memory to copy to.
    """
    wanted = {key: value for key, value in net.state_dict(keep_vars=True).items() if key not in kept}
    missing = [
        f"{key} {_shape(value)}"
        for key, value in wanted.items()
        if key not in weights.given and not key.endswith(OPTIONAL)
    ]
    unexpected = [line for line in weights.unmapped if OPTIONAL not in line]
    differing: list[str] = []
    for key, value in weights.given.items():
        theirs = weights.origin.get(key, key)
        label = key if theirs == key else f"{theirs} -> {key}"
        if key not in wanted:
            if not key.endswith(OPTIONAL):
                unexpected.append(f"{label} {_shape(value)}")
        elif not _fits(value, wanted[key], reshape):
            differing.append(f"{label}: given {_shape(value)}, the network has {_shape(wanted[key])}")
    if missing or unexpected or differing:
        hints = _hints(weights.given, wanted)
        raise WeightsError("\n".join([_report(title, missing, unexpected, differing), *hints]))
    if any(value.is_meta for key, value in weights.given.items() if key in wanted):
        raise WeightsError(f"{title}: they are on the meta device, and have no values; load them on the CPU")
    if any(value.is_meta for value in wanted.values()):
        raise WeightsError(f"{title}: the network is on the meta device, where there is nothing to copy to")
    with torch.no_grad():
        for key, value in weights.given.items():
            if key in wanted:
                wanted[key].copy_(value.reshape(wanted[key].shape))


def _hints(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """What to do, where the last layer or the first one alone is of another size."""
    hints: list[str] = []
    for key, value in given.items():
        ours = wanted.get(key)
        if ours is None or not isinstance(value, Tensor) or value.shape == ours.shape:  # pyright: ignore[reportUnnecessaryIsInstance]
            continue
        if key == "head.fc.weight" and value.shape[0] != ours.shape[0]:
            hints.append(
                f"  the weights are for {value.shape[0]} classes: build the network with "
                f"`num_classes={value.shape[0]}`, load them, and call `reset_classifier({ours.shape[0]})`"
            )
        elif value.dim() == ours.dim() == 4 and value[:, :1].shape == ours[:, :1].shape and not hints:
            hints.append(
                f"  the weights are for {value.shape[1]} channels: build the network with "
                f"`in_chans={value.shape[1]}`"
            )
    return hints


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
