"""Drawing: any network as a figure, exact because it is drawn from its traced forward."""

from .api import draw
from .canvas import Label
from .figure import DrawingError, Figure
from .lessons import draw_padding, draw_receptive_field, draw_unrolled

__all__ = ["DrawingError", "Figure", "Label", "draw", "draw_padding", "draw_receptive_field", "draw_unrolled"]
