"""Builds a network by its name. Names and overrides are checked before torch is needed."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from convatlas.catalog.cards import find_card
from convatlas.errors import UnknownNameError, nearest
from convatlas.models.model_file import ModelFile, is_model_file, read_model_file

if TYPE_CHECKING:
    from convatlas.models.network import Config, FeatureExtractor, Network


def find_config(name: str, overrides: dict[str, Any]) -> Config:
    """The `Config` of a network with fields replaced.

    Raises:
        UnknownNameError: the network or a field does not exist.
        ValueError: a value is out of range.
    """
    card = find_card(name)
    config: Config = importlib.import_module(f"convatlas.models.{card.module}").VARIANTS[card.name]
    allowed = [field.name for field in dataclasses.fields(config)]
    for field, value in overrides.items():
        if field not in allowed:
            raise UnknownNameError(
                f"{card.name} has no option `{field}` (received {value!r}); "
                f"nearest: {nearest(field, allowed)}; it has {', '.join(allowed)}"
            )
    return dataclasses.replace(config, **overrides)


def open_model(name: str | Path | ModelFile) -> ModelFile:
    """A network with options, from its name, a model file, or what that holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file names no network.
    """
    if isinstance(name, ModelFile):
        return name
    return read_model_file(name) if is_model_file(name) else ModelFile(network=str(name))


@overload
def create_model(
    name: str | Path | ModelFile, *, features_only: Literal[False] = False, **options: Any
) -> Network[Any]: ...


@overload
def create_model(
    name: str | Path | ModelFile, *, features_only: Literal[True], **options: Any
) -> FeatureExtractor: ...


def create_model(
    name: str | Path | ModelFile,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **overrides: Any,
) -> Network[Any] | FeatureExtractor:
    """Builds a network, initialised as its paper says or with published weights.

    Args:
        name: a name or alias, of which `list_models()` has all; a TOML file that names a network with
            options, as `convatlas scale` writes it; or what such a file holds, such as a plan.
        pretrained: True for the weights that are named by default, or a tag. A classifier for another
            number of classes than theirs begins at equal logits, so at a loss of ln K.
        num_classes: K; 0 for no classifier; None for the published number.
        in_chans: channels of the images; None for the published number.
        drop_rate: dropout before the classifier; None for the paper's.
        drop_path_rate: stochastic depth of the last block; None for the paper's.
        global_pool: "avg", "max" or "" in networks that pool globally; None for the paper's.
        features_only: return a `FeatureExtractor`, a backbone whose output is a list of maps.
        out_indices: which maps, with `features_only`.
        overrides: other fields of the network's `Config`.

    Returns:
        A `Network`, or a `FeatureExtractor` over one, in training mode, on torch's default device.

    Raises:
        UnknownNameError: no such network, option or weights; names the nearest.
        WeightsError: the weights cannot be had, or do not fit the options.
        ValueError: a value is out of range.
    """
    named = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
        "global_pool": global_pool,
    }
    given = {key: value for key, value in named.items() if value is not None} | overrides
    if out_indices is not None and not features_only:
        raise ValueError(f"`out_indices`={out_indices!r} has a meaning with `features_only=True` only")
    model = open_model(name)
    config = find_config(model.network, {**model.overrides, **given})
    name = find_card(model.network).name
    if pretrained is not False:
        from convatlas.weights.published import find_published

        find_published(name, pretrained)  # Before the work of building.
    net = _build(config, name)
    net.planned_input_size = model.input_size
    if pretrained is not False:
        from convatlas.weights.published import load_pretrained

        load_pretrained(net, pretrained)
    if not features_only:
        return net
    from convatlas.models.network import FeatureExtractor

    return FeatureExtractor(net, out_indices)


def _build(config: Config, name: str) -> Network[Any]:
    """Builds, and initialises once: torch's own initialisation would be thrown away."""
    import torch

    from convatlas.blocks.init import UninitialisedMode

    with UninitialisedMode():
        net = config.build()
    net.name = name
    if torch.get_default_device().type != "meta":
        net.place()
        with torch.no_grad():
            net.init_weights(net)
    return net
