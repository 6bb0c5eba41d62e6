"""Sizing: shapes, parameters, multiply-adds, memory and receptive field of any `nn.Module`.

`size` runs the module's own forward on tensors that have a shape and no storage.
"""

from .errors import DataDependentError, ShapeError, SizingError
from .memory import TrainingMemory
from .receptive import ReceptiveField
from .row import Row
from .run import size
from .sheet import Request, Sheet, Stage

__all__ = [
    "DataDependentError",
    "ReceptiveField",
    "Request",
    "Row",
    "ShapeError",
    "Sheet",
    "SizingError",
    "Stage",
    "TrainingMemory",
    "size",
]
