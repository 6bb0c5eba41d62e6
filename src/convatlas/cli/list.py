"""`convatlas list`."""

from __future__ import annotations

import dataclasses

from convatlas.cli.table_format import TABLE, TableFormat, render


def list_command(
    pattern: str = "*",
    /,
    *,
    tag: str | None = None,
    year: str | None = None,
    max_params: str | None = None,
    max_macs: str | None = None,
    sort: str = "year",
    output: TableFormat = TABLE,
) -> None:
    """List the networks with their sizes.

    Args:
        pattern: Shell-style pattern for names, for example "resnet*_cifar".
        tag: An idea that the network is built from, for example residual.
        year: Year of the paper, or a range such as 2015..2017.
        max_params: Most parameters, for example 5M.
        max_macs: Most multiply-adds for one image, for example 1G.
        sort: year, name, depth, params, macs or activations.
        output: Format of the table.
    """
    from convatlas.catalog.index import find_entries, parse_amount, parse_years, short_amount

    entries = find_entries(
        pattern,
        tag=tag,
        years=None if year is None else parse_years(year),
        max_params=None if max_params is None else parse_amount("max-params", max_params),
        max_macs=None if max_macs is None else parse_amount("max-macs", max_macs),
        sort=sort,
    )
    if not entries:
        raise ValueError("no network fits; try a wider pattern or fewer conditions")
    from convatlas.tables import Grid

    columns = ("network", "year", "depth", "params", "MACs", "px", "what it is", "also")
    rows = [
        (
            entry.name,
            str(entry.year),
            str(entry.depth),
            short_amount(entry.params),
            short_amount(entry.macs),
            str(entry.input_size[1]),
            entry.summary,
            ", ".join(entry.aliases),
        )
        for entry in entries
    ]
    lesser = ("also", "what it is", "px", "depth", "year")
    table = Grid(columns, 1, rows, (), [], tail=2, ruled=False, lesser=lesser)
    records = [dataclasses.asdict(entry) for entry in entries]
    print(render(output.chosen(), table, records=records, title="networks of the atlas"), end="")
