"""Finding a recipe: by its name, by the network that it trains, or in a file.

Recipes lie in `book/` as TOML, with the source of each value; what reads them there reads a user's file too.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convatlas.catalog.cards import find_card, is_model
from convatlas.config import build, change, to_toml
from convatlas.config import parse_settings as parse_settings
from convatlas.errors import unknown
from convatlas.training.recipes.by_network import OTHER_RECIPES, PAPER_RECIPES
from convatlas.training.recipes.recipe import Recipe as Recipe
from convatlas.training.recipes.schedules import Linear, Step

BOOK = Path(__file__).parent / "book"
FEW = 8
"""A training that is so many times shorter than its paper's, or more, is one of few epochs."""


def find_recipe(
    network: str, recipe: str | Path | Recipe | None = None, settings: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe that a training follows.

    Args:
        network: name or alias in the registry, or any other name for a network that is not in it.
        recipe: a name in `recipe_names()`, a TOML file (ends in ".toml"), or a recipe; None for the network's
            paper's, and for a network that is not in the registry "modern".
        settings: fields to change; a name with dots goes into a part: {"augment.flip": 0.5}.

    Returns:
        The recipe with its changes. Where the network's own was not named but came by itself, and `epochs`
        leaves an eighth of its training or less, it is made for few epochs, as far as `settings` leave that
        open: the steps of the rate become a straight line to 0, and crops move by a quarter as far, as a
        short training has no time to learn more images than there are.

    Raises:
        UnknownNameError: no such recipe or field; names the nearest.
        ValueError: a value is out of its range, or the file is no recipe.
        OSError: the file cannot be read.

    Source: Li, Yumer and Ramanan 2020, "Budgeted Training", Section 4: of the schedules compared, the linear
    one does best at small budgets. Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds": crops move by 2 px in 10
    epochs, by 4 in 40; that one is better still for ResNet-20 on Fashion-MNIST is in benchmarks/RESULTS.md.
    """
    is_own = recipe is None
    if recipe is None:
        recipe = paper_recipe(network)
    if isinstance(recipe, Recipe):
        found = recipe
    elif str(recipe).endswith(".toml"):
        found = read_recipe_file(Path(recipe))
    else:
        found = build(Recipe, tomllib.loads(recipe_text(str(recipe))))
    if not settings:
        return found
    changed = change(found, settings)
    if not is_own or changed.epochs * FEW > found.epochs:
        return changed
    if not _names("schedule", settings):
        changed = _straight(changed)
    return changed if _names("augment.pad_crop", settings) else _steady(changed)


def _names(field: str, settings: Mapping[str, Any]) -> bool:
    """Whether a field, a part of it, or what it is a part of, is among settings."""
    return any(f"{name}.".startswith(f"{field}.") or f"{field}.".startswith(f"{name}.") for name in settings)


def _straight(recipe: Recipe) -> Recipe:
    """With a straight line in place of steps that only fall."""
    schedule = recipe.schedule
    if isinstance(schedule, Step) and list(schedule.levels) == sorted(schedule.levels, reverse=True):
        return dataclasses.replace(recipe, schedule=Linear())
    return recipe


def _steady(recipe: Recipe) -> Recipe:
    """With crops that move by a quarter as far."""
    crop = recipe.augment.pad_crop
    if crop is None:
        return recipe
    crop = dataclasses.replace(crop, pad=max(1, crop.pad // 4))
    return dataclasses.replace(recipe, augment=dataclasses.replace(recipe.augment, pad_crop=crop))


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as TOML with all its fields, which `read_recipe_file` reads back."""
    return to_toml(recipe)


def recipe_names() -> list[str]:
    """Names of all recipes: the papers' in the order of their years, then the others."""
    return [*(name for name, _ in PAPER_RECIPES), *OTHER_RECIPES]


def paper_recipe(network: str) -> str:
    """The name of the recipe that a network trains by if nothing else is said.

    Args:
        network: as `find_recipe`.
    """
    if not is_model(network):
        return "modern"
    name = find_card(network).name
    return next(
        recipe
        for recipe, patterns in PAPER_RECIPES
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    )


def recipe_text(name: str) -> str:
    """A recipe of the book as it stands there: TOML, with the source of each value.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names(), "`convatlas recipe list` shows all")
    return (BOOK / f"{name}.toml").read_text(encoding="utf-8")


def recipe_title(name: str) -> str:
    """The first line of a recipe of the book: where it is from."""
    return recipe_text(name).partition("\n")[0].removeprefix("# ")


def read_recipe_file(path: Path) -> Recipe:
    """Reads a recipe from TOML; fields that are not in the file have the defaults of `Recipe`.

    Raises:
        ValueError: the file is no recipe; says where.
        OSError: it cannot be read.
    """
    try:
        return build(Recipe, tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # TOML's errors, those of UTF-8 and our own
        raise ValueError(f"{path}: {error}") from error
