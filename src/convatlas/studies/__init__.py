"""The claims of the papers, as programs that measure them and give a verdict."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convatlas.studies.run import run_all as run_all
    from convatlas.studies.run import run_study as run_study
    from convatlas.studies.study import find_study as find_study

__all__ = ["find_study", "run_all", "run_study"]

_HOMES = {"find_study": "study", "run_all": "run", "run_study": "run"}


def __getattr__(name: str) -> Any:
    """Imports a public function when it is first used: lists of studies need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
