"""Sizing: shapes, parameters, multiply-adds, memory and receptive field of any `nn.Module`.

`size` runs the module's own forward on tensors that have a shape and no storage.
"""

from .byhand import values_by_hand
from .depth import Depth
from .errors import DataDependentError, ShapeError, SizingError
from .memory import TrainingMemory
from .render import to_csv, to_html, to_json, to_latex, to_markdown, to_text
from .request import Request
from .roofline import Profile, ProfileError, calibrate, estimate, find_profile
from .row import ReceptiveField, Row
from .run import size
from .sheet import Sheet
from .sizes import Stage
from .trace import Trace

__all__ = [
    "DataDependentError",
    "Depth",
    "Profile",
    "ProfileError",
    "ReceptiveField",
    "Request",
    "Row",
    "ShapeError",
    "Sheet",
    "SizingError",
    "Stage",
    "Trace",
    "TrainingMemory",
    "calibrate",
    "estimate",
    "find_profile",
    "size",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_text",
    "values_by_hand",
]
