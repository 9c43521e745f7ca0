"""Per-example gradient norms and scores, in torch alone."""

from raygrad.scoring.grad_norms import (
    GRAD_COLUMNS,
    GradNormScorer,
    check_columns,
    per_example_grad_norms,
)
from raygrad.scoring.scores import EXAMPLE_COLUMNS, example_scores

__all__ = [
    "EXAMPLE_COLUMNS",
    "GRAD_COLUMNS",
    "GradNormScorer",
    "check_columns",
    "example_scores",
    "per_example_grad_norms",
]
