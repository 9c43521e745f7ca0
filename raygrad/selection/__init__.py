"""Subsets from scores, in numpy."""

from raygrad.selection.drawing import METHODS, check_method, draw
from raygrad.selection.weights import inclusion_weights

__all__ = ["METHODS", "check_method", "draw", "inclusion_weights"]
