"""convatlas: the atlas of convolutional networks.

Everything public is named here and loaded when it is first used, so that `import convatlas` stays
instant and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convatlas._version import __version__

if TYPE_CHECKING:
    from convatlas import sizing as sizing
    from convatlas import weights as weights
    from convatlas.inference.bench import bench as bench
    from convatlas.inference.choose import choose as choose
    from convatlas.inference.evaluate import evaluate as evaluate
    from convatlas.inference.load import load as load
    from convatlas.inference.optimize import optimize as optimize
    from convatlas.inference.predictor import Predictor as Predictor
    from convatlas.models.cards import Card as Card
    from convatlas.models.registry import create_model as create_model
    from convatlas.models.registry import find_card as find_card
    from convatlas.models.registry import is_model as is_model
    from convatlas.models.registry import list_models as list_models
    from convatlas.sizing.run import size as size
    from convatlas.studies.lab import run_study as run_study
    from convatlas.training.loop import resume as resume
    from convatlas.training.loop import train as train
    from convatlas.training.run import Run as Run

_HOMES = {
    "Card": "models.cards",
    "Predictor": "inference.predictor",
    "Run": "training.run",
    "bench": "inference.bench",
    "choose": "inference.choose",
    "create_model": "models.registry",
    "evaluate": "inference.evaluate",
    "find_card": "models.registry",
    "is_model": "models.registry",
    "list_models": "models.registry",
    "load": "inference.load",
    "optimize": "inference.optimize",
    "resume": "training.loop",
    "run_study": "studies.lab",
    "size": "sizing.run",
    "train": "training.loop",
}

_ROOMS = ("sizing", "weights")

__all__ = [
    "Card",
    "Predictor",
    "Run",
    "__version__",
    "bench",
    "choose",
    "create_model",
    "evaluate",
    "find_card",
    "is_model",
    "list_models",
    "load",
    "optimize",
    "resume",
    "run_study",
    "size",
    "sizing",
    "train",
    "weights",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that holds it, or a room as `convatlas.weights`."""
    if name in _ROOMS:
        return importlib.import_module(f"convatlas.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'convatlas' has no attribute {name!r}")
    return getattr(importlib.import_module(f"convatlas.{home}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
