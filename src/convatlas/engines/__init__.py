"""What can run a network: torch, ONNX Runtime, OpenVINO, ncnn, MNN, ExecuTorch, and steps in our own C++.

`ENGINES` says where each is; its module is imported when it is wanted.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from convatlas.errors import unknown

if TYPE_CHECKING:
    from convatlas.engines.backend import Backend

ENGINES = {
    "torch": "convatlas.engines.backends.torch:FOLDED_ENGINE",
    "onnxruntime": "convatlas.engines.backends.onnxruntime:ENGINE",
    "openvino": "convatlas.engines.backends.openvino:ENGINE",
    "ncnn": "convatlas.engines.backends.ncnn:ENGINE",
    "mnn": "convatlas.engines.backends.mnn:ENGINE",
    "executorch": "convatlas.engines.backends.executorch:ENGINE",
    "native": "convatlas.engines.backends.native:ENGINE",
    "torch-compiled": "convatlas.engines.backends.torch:COMPILED_ENGINE",
}
"""From simple to complex: of two that are about as fast, the first is taken."""


def find_engine(name: str) -> Backend:
    """An engine by its name.

    Raises:
        UnknownNameError: there is none; the message holds the nearest names.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return load_engine(ENGINES[name])


def load_engine(place: str) -> Backend:
    """The engine at MODULE:OBJECT."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
