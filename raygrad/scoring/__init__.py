"""Per-example gradient norms and scores, in torch alone.

`prepare` watches a model and plans how each parameter's norms are found, `plan` runs the two
passes, `operations`, `convolution`, `outer` and `normalization` hold the formulas, `verify` and
`oracle` check them. It imports nothing of raygrad but `raygrad.errors`.

Read first: `grad_norms.py`.
"""

from raygrad.scoring.columns import GRAD_COLUMNS, SCORE_COLUMNS, check_columns
from raygrad.scoring.functional import batch_bound, per_example_grad_norms
from raygrad.scoring.grad_norms import GradNormScorer
from raygrad.scoring.losses import LOSSES
from raygrad.scoring.passes import GradNorms
from raygrad.scoring.scores import example_scores

__all__ = [
    "GRAD_COLUMNS",
    "LOSSES",
    "SCORE_COLUMNS",
    "GradNormScorer",
    "GradNorms",
    "batch_bound",
    "check_columns",
    "example_scores",
    "per_example_grad_norms",
]
