"""convatlas: the atlas of convolutional networks.

Everything public is named here and loaded when it is first used, so that `import convatlas` stays
instant and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from convatlas._version import __version__

if TYPE_CHECKING:
    from convatlas import drawing as drawing
    from convatlas import scaling as scaling
    from convatlas import sizing as sizing
    from convatlas import weights as weights
    from convatlas.benchmark.bench import bench as bench
    from convatlas.catalog.cards import Card as Card
    from convatlas.catalog.cards import find_card as find_card
    from convatlas.catalog.cards import is_model as is_model
    from convatlas.catalog.cards import list_models as list_models
    from convatlas.choosing.entry import choose as choose
    from convatlas.data.sets import Source as Source
    from convatlas.data.sources import load_source as load_source
    from convatlas.data.transforms import Transform as Transform
    from convatlas.drawing.api import draw as draw
    from convatlas.engines.export import export as export
    from convatlas.engines.optimize import optimize as optimize
    from convatlas.evaluation.evaluate import evaluate as evaluate
    from convatlas.models.registry import create_model as create_model
    from convatlas.predict.explain import explain as explain
    from convatlas.predict.features import extract_features as extract_features
    from convatlas.predict.load import load as load
    from convatlas.predict.outputs import Prediction as Prediction
    from convatlas.predict.predictor import Predictor as Predictor
    from convatlas.runs.run import Run as Run
    from convatlas.runs.run import find_runs as find_runs
    from convatlas.sizing.run import size as size
    from convatlas.studies.run import run_study as run_study
    from convatlas.training.recipes.find import find_recipe as find_recipe
    from convatlas.training.recipes.recipe import Recipe as Recipe
    from convatlas.training.train import resume as resume
    from convatlas.training.train import train as train

_HOMES = {
    "Card": "catalog.cards",
    "Prediction": "predict.outputs",
    "Predictor": "predict.predictor",
    "Recipe": "training.recipes.recipe",
    "Run": "runs.run",
    "Source": "data.sets",
    "Transform": "data.transforms",
    "bench": "benchmark.bench",
    "choose": "choosing.entry",
    "create_model": "models.registry",
    "draw": "drawing.api",
    "evaluate": "evaluation.evaluate",
    "explain": "predict.explain",
    "export": "engines.export",
    "extract_features": "predict.features",
    "find_card": "catalog.cards",
    "find_recipe": "training.recipes.find",
    "find_runs": "runs.run",
    "is_model": "catalog.cards",
    "list_models": "catalog.cards",
    "load": "predict.load",
    "load_source": "data.sources",
    "optimize": "engines.optimize",
    "resume": "training.train",
    "run_study": "studies.run",
    "size": "sizing.run",
    "train": "training.train",
}

_ROOMS = ("drawing", "scaling", "sizing", "weights")

__all__ = [
    "Card",
    "Prediction",
    "Predictor",
    "Recipe",
    "Run",
    "Source",
    "Transform",
    "__version__",
    "bench",
    "choose",
    "create_model",
    "draw",
    "drawing",
    "evaluate",
    "explain",
    "export",
    "extract_features",
    "find_card",
    "find_recipe",
    "find_runs",
    "is_model",
    "list_models",
    "load",
    "load_source",
    "optimize",
    "resume",
    "run_study",
    "scaling",
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
