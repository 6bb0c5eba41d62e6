"""`TrainSpec`: everything that makes the result of a training, in words and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from convatlas.catalog.cards import find_card
from convatlas.data.fit import Fit, check_fit
from convatlas.data.sets import OnBadImage, Source
from convatlas.models.network import check_count
from convatlas.training.recipes.find import find_recipe
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.recipes.suit import FINETUNE

OnNan = Literal["stop", "skip", "rollback"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What a training is asked for, in words and numbers: it makes the result, and a run keeps it.

    Attributes:
        network: name in the registry, or the class of a network that was given from Python.
        data: name of the data set.
        recipe: how it is trained.
        seed: of weights, order, augmentation and dropout.
        model: fields of the network's config to change.
        pretrained: False, True, or the tag of published weights to begin with.
        input_size: px a side that images are brought to; None for what fits the data.
        fit: how images that are not square become so; None for "squash" where all have one size, else "crop".
        exact: compute in float32, with nothing rearranged.
        compile: use torch's compiler.
        on_nan: "stop", "skip" or "rollback" when the loss is NaN or infinite.
        on_bad_image: "refuse" or "skip" images that cannot be read.
    """

    network: str
    data: str
    recipe: Recipe
    seed: int = 0
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    pretrained: bool | str = False
    input_size: int | None = None
    fit: Fit | None = None
    exact: bool = False
    compile: bool = False
    on_nan: OnNan = "stop"
    on_bad_image: OnBadImage = "refuse"

    def __post_init__(self) -> None:
        """Checks what needs nothing else.

        Raises:
            ValueError: a value is out of its range.
        """
        check_count("seed", self.seed, least=0)
        if self.input_size is not None:
            check_count("input_size", self.input_size, least=1)
        if self.fit is not None:
            check_fit(self.fit)
        for name, allowed in (("on_nan", get_args(OnNan)), ("on_bad_image", get_args(OnBadImage))):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(repr, allowed))
                raise ValueError(f"`{name}`={getattr(self, name)!r}; allowed are {choices}")


def make_spec(
    network: str | nn.Module,
    data: str | Source | Any,
    recipe: str | Path | Recipe | None,
    settings: Mapping[str, Any],
    **others: Any,
) -> TrainSpec:
    """What is asked for, with names in place of what came from Python.

    Args:
        network: a name, or a module.
        data: a name, or the data.
        recipe: as `find_recipe` takes it; None for "finetune" where training begins with published weights,
            else for the network's own.
        settings: fields of the recipe to change.
        others: fields of `TrainSpec`.

    Raises:
        UnknownNameError: a name does not exist; names the nearest.
        ValueError: a value is out of its range, or makes no sense for a module.
    """
    if isinstance(network, nn.Module):
        title, found = type(network).__name__, find_recipe("", recipe, settings)
        given = {name: others[name] for name in ("model", "pretrained") if others.get(name)}
        given |= {name: getattr(found, name) for name in ("drop_rate", "drop_path_rate")}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"`{name}`={value!r} goes with the name of a network; a module is built")
    else:
        title = find_card(network).name
        pretrained = others.get("pretrained", False)
        found = find_recipe(title, FINETUNE if recipe is None and pretrained else recipe, settings)
    name = data if isinstance(data, str) else str(getattr(data, "name", "dataset"))
    return TrainSpec(network=title, data=name, recipe=found, **others)
