"""TDDS: how unevenly an example's predicted distribution moves from epoch to epoch."""

import logging
from typing import Any

import torch
from torch import Tensor

from raygrad.training import ranks

log = logging.getLogger("raygrad")

WINDOW = 10
"""Epochs of a window, the authors' choice."""
DECAY = 0.9
"""The weight of the last window, the authors' choice; each one before has a tenth of the next."""
MAX_NUMBERS = 2**25
"""Probabilities (examples times classes) that are kept from one epoch to the next, at most; they
are part of a training's saved state."""
_EPSILON = 1e-8  # of the authors' logarithms


class Tdds:
    r"""Follows the whole predicted distribution of every example, which the label is no part of.

    With :math:`p_t` the probabilities at epoch t of T, a window of J = 10 and
    :math:`\beta = 0.9`, the change between epochs is

    .. math:: \Delta_t = \sum_k \bigl| p_{t+1,k} (\log p_{t+1,k} - \log p_{t,k}) \bigr|,

    each window has the norm of its J - 1 changes about their mean, and the score is

    .. math:: \mathrm{tdds} = \sum_w \beta (1 - \beta)^{T - J - w}
              \sqrt{\sum_{t=w}^{w+J-2} \bigl(\Delta_t - \bar\Delta_w\bigr)^2}

    (Zhang et al. 2024, arXiv 2311.13613, as in the authors' code, whose changes are absolute a
    class). Higher is what its authors keep. They take a trajectory of the first T epochs and tune
    its length to the share that is kept. Fewer than J epochs are one window; of fewer than three
    it is 0.

    Args:
        num_examples: Training examples N.
        device: Where the probabilities are.
        last: The last epoch that is looked at; None for all.
    """

    def __init__(self, num_examples: int, device: torch.device, last: int | None = None) -> None:
        self._number, self._device, self._last = num_examples, device, last
        self._now: Tensor | None = None
        self._before: Tensor | None = None
        self._changes = torch.zeros(WINDOW - 1, num_examples, device=device)
        self._score = torch.zeros(num_examples, dtype=torch.float64, device=device)
        self._epochs = 0
        self._is_followed = True

    def on_batch(self, positions: Tensor, probabilities: Tensor) -> None:
        """Notes the probabilities ``[B, C]`` of this rank's share of a step."""
        if self._now is None and self._is_followed:
            self._begin(probabilities.shape[1])
        if self._now is not None:
            self._now[positions] = probabilities

    def _begin(self, num_classes: int) -> None:
        if self._number * num_classes > MAX_NUMBERS:
            self._is_followed = False
            log.warning(
                "dynamics: tdds is not followed, and stays empty: %d examples of %d classes are "
                "more than %d numbers",
                self._number, num_classes, MAX_NUMBERS,
            )  # fmt: skip
            return
        self._now = torch.zeros(self._number, num_classes, device=self._device)

    def _summed(self) -> Tensor | None:
        """Returns what all ranks saw in the epoch under way, None before they saw anything.

        All ranks are asked at every step, one without an example too, so that all have begun or
        none has.
        """
        return None if self._now is None else ranks.sum_over_ranks(self._now)

    def after_epoch(self) -> None:
        """Takes what all ranks saw in the epoch."""
        now = self._summed()
        if now is None:
            return
        self._epochs += 1
        self._now = torch.zeros_like(now)
        if self._last is not None and self._epochs > self._last:
            return
        if self._before is not None:
            moved = (now + _EPSILON).log() - (self._before + _EPSILON).log()
            change = (now * moved).abs().sum(1)
            self._changes[(self._epochs - 2) % (WINDOW - 1)] = change
        self._before = now
        if self._epochs >= WINDOW:
            self._score = DECAY * _unevenness(self._changes) + (1 - DECAY) * self._score

    def column(self) -> Tensor:
        """Returns the scores of the epochs so far, float64 ``[N]``; NaN where not followed."""
        if not self._is_followed:
            return torch.full_like(self._score, torch.nan)
        watched = self._epochs if self._last is None else min(self._epochs, self._last)
        if watched < WINDOW:
            return DECAY * _unevenness(self._changes[: max(watched - 1, 0)])
        return self._score

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next epochs need, and what all ranks saw in the one under way."""
        return {
            "now": self._summed(),
            "before": self._before,
            "changes": self._changes,
            "score": self._score,
            "epochs": self._epochs,
            "is_followed": self._is_followed,
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Goes on from what `state_dict` returned; None is of a version that followed nothing."""
        if state is None:
            self._is_followed = False
            log.warning(
                "dynamics: tdds stays empty: this training was begun by a raygrad without it"
            )
            return

        def here(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(self._device)

        now = here(state["now"])
        self._now = None if now is None else now * (ranks.rank() == 0)
        self._before = here(state["before"])
        self._changes = state["changes"].to(self._device)
        self._score = state["score"].to(self._device)
        self._epochs, self._is_followed = state["epochs"], state["is_followed"]


def _unevenness(changes: Tensor) -> Tensor:
    """Returns the norm of changes ``[J - 1, N]`` about their mean, float64 ``[N]``."""
    wide = changes.double()
    if not len(wide):
        return wide.sum(0)
    return (wide - wide.mean(0)).square().sum(0).sqrt()
