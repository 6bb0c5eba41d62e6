"""`convatlas show`."""

from __future__ import annotations

from convatlas.cli.table_format import TABLE, TableFormat, render


def show_command(network: str, /, *, output: TableFormat = TABLE) -> None:
    """Show a network's card: its paper, and what was published against what is computed.

    Args:
        network: A name or alias.
        output: Format; all but table and json hold the published figures alone.
    """
    from convatlas.catalog.describe import describe, published_grid, published_records, record

    form = output.chosen()
    if form == "table":
        print(describe(network))
    else:
        records, everything = published_records(network), record(network)
        text = render(
            form, published_grid(network), records=records, everything=everything, title=everything["name"]
        )
        print(text, end="")
