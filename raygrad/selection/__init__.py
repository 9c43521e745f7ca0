"""Subsets from scores, in numpy.

`named` knows every method; `methods`, `coverage` and `semdedup` keep by a number of each row,
`k_center`, `d2`, `badge` and `batch_aware` by comparing examples; `drawing` and `out_of_core` draw
in memory and from Parquet of any size, `analysis` and `attributes` tell of scores and results. It
imports nothing of raygrad but `raygrad.errors`.

Read first: `drawing.py`.
"""

from raygrad.selection.batch_aware import draw_batch_aware
from raygrad.selection.drawing import draw
from raygrad.selection.named import COMPARING, METHODS, check_method
from raygrad.selection.out_of_core import draw_parts
from raygrad.selection.weights import inclusion_weights

__all__ = [
    "COMPARING",
    "METHODS",
    "check_method",
    "draw",
    "draw_batch_aware",
    "draw_parts",
    "inclusion_weights",
]
