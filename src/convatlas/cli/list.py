"""`convatlas list`."""

from __future__ import annotations


def list_command(pattern: str = "*") -> None:
    """List the networks, oldest paper first.

    Args:
        pattern: Shell-style pattern, for example "lenet*".
    """
    from convatlas.models.registry import find_card, list_models

    for name in list_models(pattern):
        card = find_card(name)
        print(f"{name:<24} {card.paper.year}  {card.summary}")
