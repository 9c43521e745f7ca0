"""Subsets from scores, in numpy."""

from raygrad.selection.methods import METHODS, check_method, draw, inclusion_weights

__all__ = ["METHODS", "check_method", "draw", "inclusion_weights"]
