"""Recipes: everything about a training that is not the network, the data or the seed."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable
from typing import Any, Literal, get_args

from convatlas.errors import UnknownNameError, nearest

Loss = Literal["softmax", "rbf"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """Random affine augmentation, as `convatlas.data.augment.random_affine` takes it.

    Attributes:
        degrees: largest rotation either way.
        scale: largest change of size, as the logarithm of the factor.
        shear: largest shear, px of x for each px of y.
        shift: largest shift along each axis, px.
    """

    degrees: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: B; the last batch of an epoch may be smaller.
        lr: largest learning rate.
        warmup: share of all steps over which the rate rises linearly from 0; then it falls as a cosine to 0.
        momentum: of SGD with Nesterov's step.
        weight_decay: added to the gradient of every parameter.
        loss: "softmax" (cross-entropy), or "rbf" (the 1998 criterion for distances).
        affine: augmentation; None for none.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 0.05
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss: Loss = "softmax"
    affine: Affine | None = Affine()

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        for name, least in (("epochs", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"`{name}`={value!r}; expected a whole number of at least {least}")
        for name, least in (("lr", "above 0"), ("weight_decay", "of at least 0")):
            value = getattr(self, name)
            fits = isinstance(value, int | float) and math.isfinite(value) and value >= 0.0
            if not fits or (value == 0.0 and least == "above 0"):
                raise ValueError(f"`{name}`={value!r}; expected a number {least}")
        for name in ("warmup", "momentum"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"`{name}`={value!r}; expected a rate of at least 0 and below 1")
        if self.loss not in get_args(Loss):
            allowed = ", ".join(repr(name) for name in get_args(Loss))
            raise ValueError(f"`loss`={self.loss!r}; allowed are {allowed}")

    def lr_at(self, step: int, num_steps: int) -> float:
        """The learning rate of a step, counted from 0, as a closed form."""
        share = (step + 1) / num_steps
        if share < self.warmup:
            return self.lr * share / self.warmup
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (share - self.warmup) / (1.0 - self.warmup)))


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """Reads "field=value" items; values are TOML (30, 0.1, true, {degrees = 5.0}), or else text.

    Raises:
        ValueError: an item has no "=".
    """
    settings: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"`--set {item}`; expected FIELD=VALUE, for example epochs=10")
        try:
            settings[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[name.strip()] = text.strip()
    return settings


RECIPES = {
    "lenet5": Recipe(batch_size=32),
    # Squared distances over 84 units give gradients about a hundred times those of a softmax layer.
    "lenet5_1998": Recipe(lr=2e-3, batch_size=32, loss="rbf", weight_decay=0.0),
}
"""The recipe of each network that can be trained."""


def find_recipe(network: str, settings: dict[str, Any]) -> Recipe:
    """The recipe of a network with fields replaced.

    Args:
        network: its name in the registry.
        settings: fields of `Recipe`.

    Raises:
        UnknownNameError: the network has no recipe, or a field does not exist.
        ValueError: a value is out of its range.
    """
    recipe = RECIPES.get(network)
    if recipe is None:
        raise UnknownNameError(f"{network} has no training recipe; these have: {', '.join(RECIPES)}")
    fields = [field.name for field in dataclasses.fields(Recipe)]
    for name, value in settings.items():
        if name not in fields:
            raise UnknownNameError(
                f"a recipe has no field `{name}` (received {value!r}); nearest: {nearest(name, fields)}"
            )
    affine = settings.get("affine")
    if isinstance(affine, dict):
        settings = settings | {"affine": _affine(affine)}
    return dataclasses.replace(recipe, **settings)


def _affine(entry: dict[str, Any]) -> Affine:
    fields = [field.name for field in dataclasses.fields(Affine)]
    for name in entry:
        if name not in fields:
            raise UnknownNameError(f"`affine` has no field `{name}`; it has {', '.join(fields)}")
    return Affine(**entry)
