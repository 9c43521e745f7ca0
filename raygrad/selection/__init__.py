"""Subsets from scores, in numpy.

`methods`, `coverage` and `batch_aware` say who is kept, `drawing` and `out_of_core` draw in memory
and from Parquet of any size, `analysis` and `attributes` tell of scores and results. It imports
nothing of raygrad but `raygrad.errors`.

Read first: `drawing.py`.
"""

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
