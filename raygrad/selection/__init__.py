"""Subsets from scores, in numpy."""

from raygrad.selection.batch_aware import draw_batch_aware
from raygrad.selection.drawing import IN_MEMORY, METHODS, check_method, draw
from raygrad.selection.out_of_core import draw_parts
from raygrad.selection.weights import inclusion_weights

__all__ = [
    "IN_MEMORY",
    "METHODS",
    "check_method",
    "draw",
    "draw_batch_aware",
    "draw_parts",
    "inclusion_weights",
]
