"""The history of convolutional networks in three charts: depth, ideas, accuracy and cost."""

from .accuracy import draw_accuracy
from .data import Idea, Milestone, Point, ideas, milestones, points, record
from .depth import draw_depth
from .timeline import draw_timeline

__all__ = [
    "Idea",
    "Milestone",
    "Point",
    "draw_accuracy",
    "draw_depth",
    "draw_timeline",
    "ideas",
    "milestones",
    "points",
    "record",
]
