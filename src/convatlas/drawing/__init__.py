"""Drawing: any network as a figure, exact because it is drawn from its traced forward."""

from .api import draw
from .canvas import Label
from .figure import DrawingError, Figure

__all__ = ["DrawingError", "Figure", "Label", "draw"]
