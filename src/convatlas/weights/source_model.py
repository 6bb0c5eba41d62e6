"""Which model weights come from: the same keys mean another function where it pads otherwise."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import warnings
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.catalog.cards import all_cards
from convatlas.errors import nearest
from convatlas.weights.errors import WeightsError
from convatlas.weights.keymap import KeyTable

TRANSFORM_INPUT = "transform_input"
"""torchvision's option that brings images from ImageNet's normalisation to mean 0.5 and std 0.5."""

HALF = (0.5, 0.5, 0.5)

# What a layer of one kind does beside its weights, by the name that torch gives it. Padding is left to the
# comparison of outputs, since it has many forms; the momentum of norms does not change answers.
FACTS = ("eps", "stride", "dilation", "groups")

# Largest difference of outputs, relative to the largest output, that rounding explains.
TOLERANCE = 1e-3
# Images for the comparison are no larger, px a side: time grows with their area.
MAX_SIDE = 256


def check_named(net: nn.Module, table: KeyTable, model: str) -> bool:
    """Checks a network's options against those that the model of the other library has.

    Args:
        net: ours.
        table: its key table.
        model: the other library's name.

    Returns:
        Whether the model changes the normalisation of its input.

    Raises:
        WeightsError: no such model in the table, or the network is built with other options than it needs.
    """
    known = table.models_of(_name(net))
    name = model.partition(".")[0]
    pattern = next((each for each in known if fnmatch.fnmatchcase(name, each)), None)
    if known and pattern is None:
        raise WeightsError(
            f"`model`={model!r}: {table.file} knows no model of this name; nearest: "
            f"{nearest(name, known)}; all: {', '.join(known)}"
        )
    options = dict(known[pattern]) if pattern is not None else {}
    half = bool(options.pop(TRANSFORM_INPUT, False))
    wrong = _differing(net, options)
    if wrong:
        raise WeightsError(f"{_name(net)}: weights of {model} need {_build(net, wrong)}; nothing was loaded")
    return half


def warn_if_open(net: nn.Module, table: KeyTable) -> None:
    """Warns where the keys fit several models, unless the network was built for one that is not the usual."""
    known = table.models_of(_name(net))
    needs = {pattern: _differing(net, options) for pattern, options in known.items()}
    fitting = [pattern for pattern, wrong in needs.items() if not wrong]
    inputs = any(options.get(TRANSFORM_INPUT) for options in known.values())
    chosen = bool(fitting) and (len(known) == 1 or fitting[0] != next(iter(known)))
    if not known or (chosen and not inputs):
        return
    listed = "; ".join(
        f"{pattern} needs {_keywords(wrong) if wrong else 'the options that it has'}"
        for pattern, wrong in needs.items()
    )
    if inputs:
        listed += f", and with `{TRANSFORM_INPUT}` images of mean 0.5 and std 0.5"
    warnings.warn(
        f"{_name(net)}: the keys do not tell which model of {table.source} the weights come from: {listed}; "
        "say `model=`, or give the model in place of its weights",
        stacklevel=3,
    )


def check_layers(net: nn.Module, theirs: nn.Module, table: KeyTable) -> None:
    """Compares what layers do beside their weights: epsilon, stride, dilation, groups.

    Raises:
        WeightsError: a layer differs.
    """
    ours = dict(net.named_modules())
    differing: dict[str, str] = {}
    for path, layer in theirs.named_modules():
        if table.drops(f"{path}.weight"):
            continue
        key = table.our_key(f"{path}.weight") or ""
        own = ours.get(key.removesuffix(".weight"))
        if own is None or not isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.modules.conv._ConvNd):  # pyright: ignore[reportPrivateUsage]
            continue
        for fact in FACTS:
            one, other = getattr(layer, fact, None), getattr(own, fact, None)
            if one != other and None not in (one, other) and fact not in differing:
                differing[fact] = f"`{fact}`={one} at {path}, where {_name(net)} has {other}"
    if differing:
        wrong = _differing(net, _options_from(net, theirs))
        need = f"; build it with {_keywords(wrong)}" if wrong else ""
        raise WeightsError(
            f"{_name(net)}: the model is another network: {'; '.join(differing.values())}{need}; "
            "nothing was loaded"
        )


def check_outputs(net: nn.Module, theirs: nn.Module) -> None:
    """Compares what both answer to the same random images, in evaluation mode.

    Raises:
        WeightsError: the answers differ by more than rounding does.
    """
    x = _images(net)
    with _evaluated(net), _evaluated(theirs), torch.no_grad():
        ours = net(x)
        try:
            other = theirs(x)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            warnings.warn(
                f"outputs were not compared: the model does not take {tuple(x.shape)} ({error})", stacklevel=3
            )
            return
    if not isinstance(other, Tensor) or other.shape != ours.shape or other.is_meta:
        return
    error = (ours - other).abs().max() / other.abs().max().clamp(min=1e-12)
    if not error <= TOLERANCE:
        wrong = _differing(net, _options_from(net, theirs))
        need = f"build it with {_keywords(wrong)}" if wrong else "it pads, pools or activates otherwise"
        raise WeightsError(
            f"{_name(net)}: the weights fit, but the model answers otherwise (relative difference "
            f"{error:.1g}): {need}; nothing was loaded"
        )


def take_half_normalisation(net: nn.Module, model: str) -> None:
    """Gives the network's transform a mean and std of 0.5, which the model makes of its input; says so."""
    transform: Any = getattr(net, "transform", None)
    if dataclasses.is_dataclass(transform) and not isinstance(transform, type):
        net.transform = dataclasses.replace(transform, mean=HALF, std=HALF)  # pyright: ignore[reportArgumentType]
    warnings.warn(
        f"{model} has `{TRANSFORM_INPUT}`: it brings images from ImageNet's normalisation to mean 0.5 and "
        f"std 0.5 by itself; {_name(net)} does not, so normalise its images by mean 0.5 and std 0.5",
        stacklevel=3,
    )


def _options_from(net: nn.Module, theirs: nn.Module) -> dict[str, Any]:
    """Options of our network that the modules of the other one show, where ours has such options."""
    fields = set(_fields(net))
    norm = next((layer for layer in theirs.modules() if isinstance(layer, nn.BatchNorm2d)), None)
    options: dict[str, Any] = {}
    if norm is not None:
        options = {"norm_eps": norm.eps, "bn_eps": norm.eps}
    options["same_padding"] = any("same" in type(layer).__name__.casefold() for layer in theirs.modules())
    return {key: value for key, value in options.items() if key in fields}


def _differing(net: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    fields = _fields(net)
    return {key: value for key, value in options.items() if key in fields and fields[key] != value}


def _fields(net: nn.Module) -> dict[str, Any]:
    config: Any = getattr(net, "config", None)
    if not dataclasses.is_dataclass(config):
        return {}
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _build(net: nn.Module, wrong: Mapping[str, Any]) -> str:
    return f"`create_model({_name(net)!r}, {_plain(wrong)})`"


def _keywords(wrong: Mapping[str, Any]) -> str:
    return f"`{_plain(wrong)}`"


def _plain(wrong: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in wrong.items())


def _name(net: nn.Module) -> str:
    return str(getattr(net, "name", "") or type(net).__name__)


def _images(net: nn.Module) -> Tensor:
    """Two random images of a size that the network takes."""
    card = all_cards().get(_name(net))
    channels, side = (3, 224) if card is None else (card.input_size[0], card.input_size[1])
    channels = int(_fields(net).get("in_chans", channels))
    parameter = next(net.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, min(side, MAX_SIDE), min(side, MAX_SIDE), generator=generator)
    return x.to(parameter.device, parameter.dtype)


@contextlib.contextmanager
def _evaluated(net: nn.Module) -> Generator[None]:
    """Evaluation mode and an untouched input, for a while."""
    modes = {layer: layer.training for layer in net.modules()}
    own_transform = getattr(net, TRANSFORM_INPUT, None)
    net.eval()
    if own_transform:
        setattr(net, TRANSFORM_INPUT, False)
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode
        if own_transform:
            setattr(net, TRANSFORM_INPUT, own_transform)
