"""Scores of how each example was learned, streamed from training's own forward passes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raygrad.training import ranks
from raygrad.training.tdds import Tdds

DYNAMICS_COLUMNS = (
    "forgetting", "aum", "dyn_unc", "dual", "tdds", "el2n_mean", "mean_probability",
)  # fmt: skip
"""The columns of a table of dynamics."""

WINDOW = 10
"""Epochs that dyn_unc and dual look at together, and the first ones that el2n_mean averages."""


class Dynamics:
    r"""Follows every training example over epochs; higher means harder in all scores but one.

    Each example is seen once an epoch, as it is trained on: augmented, with dropout, before the
    step's update. With :math:`p_t` the probability of the label at epoch t of T, :math:`z_t` the
    logits, J = 10 and :math:`\bar p_k, \sigma_k` the mean and standard deviation (with J - 1) of
    :math:`p_k \ldots p_{k+J-1}`:

    .. math::
        \mathrm{forgetting} &= |\{t : \text{right at } t-1, \text{wrong at } t\}|,
            \ +\infty \text{ if never right} \\
        \mathrm{aum} &= -\tfrac1T \sum_t \bigl(z_{t,y} - \max_{k \ne y} z_{t,k}\bigr) \\
        \mathrm{dyn\_unc} &= \tfrac1{T-J+1} \sum_k \sigma_k \\
        \mathrm{dual} &= \tfrac1{T-J+1} \sum_k (1 - \bar p_k)\, \sigma_k \\
        \mathrm{el2n\_mean} &= \tfrac1J \sum_{t \le J} \lVert \mathrm{softmax}(z_t)
            - \mathrm{onehot}(y) \rVert_2 \\
        \mathrm{mean\_probability} &= \tfrac1T \sum_t p_t

    after Toneva et al. (arXiv 1812.05159), Pleiss et al. (arXiv 2001.10528; their area under the
    margin is low for hard examples, so its sign is turned here), He et al. (arXiv 2306.05175),
    Cho et al. (arXiv 2502.06905) and Paul et al. (arXiv 2107.07075); tdds is that of `Tdds`.
    mean_probability alone is higher for easier examples: it is no score, but what DUAL's sampling
    needs beside one.
    Fewer than J epochs count as one window; of one epoch dyn_unc and dual are 0.

    With `first_epochs` dual, tdds and mean_probability look at the first so many epochs alone, as
    DUAL's authors do to spare the rest of a training: the first 30 of 200 on CIFAR, 60 on ImageNet.
    Without, they look at all of them, which is not what DUAL's authors report. el2n_mean differs
    from the original too: Paul et al. average over ten trainings, here it is over the first J
    epochs of one.

    It holds 2 J + 10 numbers an example, never the logits, and for tdds twice the probabilities of
    all classes where they are few enough. Ranks see different examples; what
    they saw is added up after each epoch, so every rank has all.

    Args:
        num_examples: Training examples N.
        device: Where the logits are.
        first_epochs: How many first epochs dual, tdds and mean_probability look at; None for all.
    """

    name = "dynamics"

    def __init__(
        self, num_examples: int, device: torch.device, first_epochs: int | None = None
    ) -> None:
        n = num_examples
        self._first = first_epochs
        # Rows: probability, margin of the logits, EL2N and correctness, in the epoch under way.
        self._now = torch.zeros(4, n, device=device)
        self._probabilities = torch.zeros(WINDOW, n, device=device)
        # Rows: sums over epochs of probability, margin and EL2N, over windows of std and DUAL.
        self._sums = torch.zeros(5, n, dtype=torch.float64, device=device)
        self._forgotten = torch.zeros(n, dtype=torch.int32, device=device)
        self._was_right = torch.zeros(n, dtype=torch.bool, device=device)
        self._learned = torch.zeros(n, dtype=torch.bool, device=device)
        self._epochs = 0
        self._tdds = Tdds(n, device, first_epochs)

    def on_batch(self, positions: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Notes this rank's share of a step; see `Observer`."""
        column = labels[:, None]
        probabilities = logits.softmax(1)
        probability = probabilities.gather(1, column)
        largest = logits.scatter(1, column, -torch.inf).amax(1)
        margin = logits.gather(1, column)[:, 0] - largest
        # ||p - onehot||, with the sum of the others for 1 - p_y, which near 1 loses its digits.
        others = probabilities.scatter(1, column, 0.0)
        el2n = (others.square().sum(1) + others.sum(1).square()).sqrt()
        # Of equal logits the first is the prediction, as everywhere.
        right = logits.argmax(1) == labels
        seen = torch.stack([probability[:, 0], margin, el2n, right.to(margin.dtype)])
        self._now[:, positions] = seen
        self._tdds.on_batch(positions, probabilities)

    def after_epoch(self, epoch: int, network: nn.Module) -> None:
        """Takes what all ranks saw in the epoch into the sums; see `Observer`."""
        probability, margin, el2n, right = ranks.sum_over_ranks(self._now)
        self._now = torch.zeros_like(self._now)
        self._probabilities[self._epochs % WINDOW] = probability
        self._epochs += 1
        self._sums[1] += margin
        if self._epochs <= WINDOW:
            self._sums[2] += el2n
        self._add_probability(probability)
        is_right = right > 0
        self._forgotten += self._was_right & ~is_right
        self._was_right = is_right
        self._learned |= is_right
        self._tdds.after_epoch()

    def _add_probability(self, probability: Tensor) -> None:
        """Takes an epoch's probabilities into the sums that are made of them."""
        last = self._epochs if self._first is None else self._first
        if self._epochs <= last:
            self._sums[0] += probability
        if self._epochs >= WINDOW:
            deviation, dual = _window_scores(self._probabilities)
            self._sums[3] += deviation
            if self._epochs <= last:
                self._sums[4] += dual
        elif self._epochs == self._first:
            # Too few for a window of full length: they are one, whatever follows.
            self._sums[4] = _window_scores(self._probabilities[: self._epochs])[1]

    def columns(self) -> dict[str, NDArray[np.float32]]:
        """Returns `DYNAMICS_COLUMNS` of the epochs so far, at least one, each float32 `[N]`."""
        assert self._epochs > 0
        probability, margin, el2n, deviation, dual = self._sums
        watched = self._epochs if self._first is None else min(self._epochs, self._first)
        if self._epochs < WINDOW:
            deviation, _ = _window_scores(self._probabilities[: self._epochs])
            _, dual = _window_scores(self._probabilities[:watched])
        forgetting = self._forgotten.double().masked_fill(~self._learned, torch.inf)
        found = {
            "forgetting": forgetting,
            "aum": -margin / self._epochs,
            "dyn_unc": deviation / max(self._epochs - WINDOW + 1, 1),
            "dual": dual / max(watched - WINDOW + 1, 1),
            "tdds": self._tdds.column(),
            "el2n_mean": el2n / min(self._epochs, WINDOW),
            "mean_probability": (probability / watched).clamp(0, 1),
        }
        return {name: found[name].float().cpu().numpy() for name in DYNAMICS_COLUMNS}

    def state_dict(self) -> dict[str, Any]:
        """Returns all sums, and what all ranks saw in the epoch under way."""
        return {
            "now": ranks.sum_over_ranks(self._now),
            "probabilities": self._probabilities,
            "sums": self._sums,
            "forgotten": self._forgotten,
            "was_right": self._was_right,
            "learned": self._learned,
            "epochs": self._epochs,
            "tdds": self._tdds.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned; the first rank holds what all had seen."""
        device = self._now.device
        self._now = state["now"].to(device) * (ranks.rank() == 0)
        self._probabilities = state["probabilities"].to(device)
        self._sums = state["sums"].to(device)
        self._forgotten = state["forgotten"].to(device)
        self._was_right = state["was_right"].to(device)
        self._learned = state["learned"].to(device)
        self._epochs = state["epochs"]
        self._tdds.load_state_dict(state.get("tdds"))


def _window_scores(probabilities: Tensor) -> Tensor:
    """Returns standard deviation and DUAL of one window, `[J, N]`, as float64 `[2, N]`."""
    p = probabilities.double()
    if len(p) < 2:
        return torch.zeros(2, p.shape[1], dtype=torch.float64, device=p.device)
    deviation, mean = torch.std_mean(p, dim=0)
    return torch.stack([deviation, (1 - mean) * deviation])
