"""`convatlas recipe`."""

from __future__ import annotations

from cyclopts import App

from convatlas.cli.table_format import TABLE, TableFormat, render

recipe_command = App(name="recipe", help="List the training recipes, or show one as a TOML file.")


@recipe_command.command(name="list")
def list_recipes(*, output: TableFormat = TABLE) -> None:
    """List the recipes with their lengths and sources.

    Args:
        output: Format of the table.
    """
    from convatlas.tables import Grid
    from convatlas.training.recipes.find import find_recipe, recipe_names, recipe_title

    records = [
        {
            "recipe": name,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "optimizer": recipe.optimizer,
            "source": recipe_title(name),
        }
        for name in recipe_names()
        for recipe in [find_recipe("", name)]
    ]
    rows = [tuple(map(str, record.values())) for record in records]
    columns = ("recipe", "epochs", "batch", "optimizer", "where it is from")
    grid = Grid(columns, 1, rows, (), [], tail=2, ruled=False, lesser=("optimizer", "batch"))
    print(render(output.chosen(), grid, records=records, title="recipes"), end="")


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
