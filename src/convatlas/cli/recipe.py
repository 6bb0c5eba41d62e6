"""`convatlas recipe`."""

from __future__ import annotations

from cyclopts import App

recipe_command = App(name="recipe", help="List the training recipes, or show one as a TOML file.")


@recipe_command.command(name="list")
def list_recipes() -> None:
    """List the recipes with their lengths and sources."""
    from convatlas.training.recipes.find import find_recipe, recipe_names, recipe_title

    names = recipe_names()
    width = max(map(len, names))
    print(f"{'recipe':<{width}}  epochs  batch  optimizer  where it is from")
    for name in names:
        recipe = find_recipe("", name)
        print(
            f"{name:<{width}}  {recipe.epochs:>6}  {recipe.batch_size:>5}  {recipe.optimizer:<9}  "
            f"{recipe_title(name)}"
        )


@recipe_command.command(name="show")
def show_recipe(name: str, /) -> None:
    """Show a recipe with the source of each value; copy, change and train with --config FILE.toml.

    Args:
        name: Name of a recipe, or of a network for the recipe that it trains by.
    """
    from convatlas.catalog.cards import is_model
    from convatlas.training.recipes.find import paper_recipe, recipe_text

    if is_model(name):
        name = paper_recipe(name)
    print(recipe_text(name), end="")
