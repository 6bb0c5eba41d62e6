"""convatlas: the atlas of convolutional networks.

Everything public is named here and loaded when it is first used, so that `import convatlas` stays
instant and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convatlas._version import __version__

if TYPE_CHECKING:
    from convatlas.models.cards import Card as Card
    from convatlas.models.registry import create_model as create_model
    from convatlas.models.registry import find_card as find_card
    from convatlas.models.registry import is_model as is_model
    from convatlas.models.registry import list_models as list_models

_HOMES = {
    "Card": "models.cards",
    "create_model": "models.registry",
    "find_card": "models.registry",
    "is_model": "models.registry",
    "list_models": "models.registry",
}

__all__ = ["Card", "__version__", "create_model", "find_card", "is_model", "list_models"]


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that holds it."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'convatlas' has no attribute {name!r}")
    return getattr(importlib.import_module(f"convatlas.{home}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
