"""The explorer: web pages and an HTTP API over the atlas, served from this machine. Needs the extra `web`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import make_app as make_app
    from .server import PortInUseError as PortInUseError
    from .server import serve as serve

__all__ = ["PortInUseError", "make_app", "serve"]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is used, so that the worker processes need no web framework."""
    from importlib import import_module

    homes = {"make_app": "app", "serve": "server", "PortInUseError": "server"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
