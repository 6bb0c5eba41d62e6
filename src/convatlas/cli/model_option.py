"""`--model`: a model file, or fields of a network's config that are changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from convatlas.catalog.cards import find_card
from convatlas.config import parse_settings
from convatlas.files import with_tuples
from convatlas.models.model_file import ModelFile, is_model_file, read_model_file
from convatlas.models.registry import find_config, open_model

ModelOption = Annotated[tuple[str, ...], Parameter(name="--model", negative="", consume_multiple=False)]
"""`--model KEY=VALUE` or `--model FILE.toml`, any number of times."""


def read_model(network: str | None, items: Sequence[str]) -> ModelFile:
    """The network that a command is given, with options.

    Args:
        network: a name, a model file, or None where `--model` names one.
        items: as `--model` was given: KEY=VALUE, a field of the config, or FILE.toml.

    Raises:
        FileNotFoundError: there is no such file.
        UnknownNameError: there is no such network or field; names the nearest.
        ValueError: no network or two are named, or an item is neither.
    """
    files = [item for item in items if is_model_file(item) and "=" not in item]
    changes = read_changes([item for item in items if item not in files])
    named = [*([network] if network is not None else []), *files]
    if len(named) > 1 and not (network is not None and len(files) == 1 and _is_same(network, files[0])):
        raise ValueError(f"{' and '.join(named)} both name a network; give one of them")
    if not named:
        raise ValueError("no network is named; expected a name such as resnet50, or --model FILE.toml")
    found = open_model(named[-1])
    overrides = {**found.overrides, **changes}
    name = find_card(found.network).name
    config = find_config(name, dict(overrides))
    # A genotype that was given as a file is kept as its text: the run must not depend on the file.
    overrides = {key: getattr(getattr(config, key), "text", value) for key, value in overrides.items()}
    return dataclasses.replace(found, network=name, overrides=overrides)


def _is_same(network: str, file: str) -> bool:
    """Whether a name is that of the network in a file, so that naming both says nothing new."""
    return not is_model_file(network) and find_card(network).name == read_model_file(file).network


def read_changes(items: Sequence[str]) -> dict[str, Any]:
    """Fields of a config, from KEY=VALUE: lists become the tuples that a config holds, "none" becomes None.

    Raises:
        ValueError: an item is not KEY=VALUE.
    """
    for item in items:
        if "=" not in item:
            raise ValueError(
                f"`--model {item}`; expected KEY=VALUE, such as width_mult=0.5, or a file that ends in .toml"
            )
    found = with_tuples(parse_settings(items))
    return {key: None if value == "none" else value for key, value in found.items()}
