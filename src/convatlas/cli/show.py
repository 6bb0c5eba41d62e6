"""`convatlas show`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from convatlas.escape import json_text


def show_command(
    network: str, /, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """Show a network's card: its paper, and what was published against what is computed.

    Args:
        network: A name or alias.
        as_json: Print one JSON object, for machines.
    """
    from convatlas.catalog.describe import describe, record

    print(json_text(record(network), indent=2) if as_json else describe(network))
