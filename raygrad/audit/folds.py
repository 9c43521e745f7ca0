"""Probabilities of examples that a classifier has not seen: K folds, and linear heads on them."""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raygrad.errors import ConfigError

log = logging.getLogger("raygrad")

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""L2 penalties of a head that are tried, of the mean loss over standardised features."""

_STEPS = 100
_VALIDATED = 5


def fold_numbers(
    labels: NDArray[np.int64], hashes: NDArray[np.uint64], num_folds: int
) -> NDArray[np.int64]:
    """Returns the fold of each example: of even size within each class, by the hashes' order.

    Args:
        labels: Classes, ``[N]``.
        hashes: Seeded bits of the keys, ``[N]``: the folds depend on them and on no order.
        num_folds: K, at least 2.

    Returns:
        int64 ``[N]``, in ``0..K-1``.

    Raises:
        ConfigError: There are fewer than two folds, or not an example for each.
    """
    if not 2 <= num_folds <= max(len(labels), 2):
        raise ConfigError(
            f"folds must be at least 2 and at most the {len(labels)} examples, got {num_folds}."
        )
    order = np.lexsort((hashes, labels))
    folds = np.empty(len(labels), np.int64)
    # Over the classes together: small ones do not all fall into the first fold.
    folds[order] = np.arange(len(labels)) % num_folds
    return folds


def head_probabilities(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    num_classes: int,
    penalty: float | None = None,
) -> NDArray[np.float32]:
    """Returns each example's probabilities by a softmax regression of the other folds.

    The head is fitted to its minimum by L-BFGS on features that are standardised over the folds
    that it sees. The penalty is the one of `PENALTIES` whose head on the first fold's others has
    the least held-out loss.

    Args:
        features: ``[N, D]``, finite.
        labels: Classes ``0..C-1``, ``[N]``.
        folds: Of `fold_numbers`, ``[N]``.
        num_classes: C, at least 2.
        penalty: L2 penalty; by default it is chosen.

    Returns:
        float32 ``[N, C]``.
    """
    inputs = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    targets = torch.tensor(labels)
    found = torch.empty(len(labels), num_classes)
    numbers = np.unique(folds).tolist()
    if penalty is None:
        penalty = _best_penalty(inputs, targets, torch.from_numpy(folds == numbers[0]), num_classes)
    for number in numbers:
        held = torch.from_numpy(folds == number)
        logits, _ = _held_out_logits(inputs, targets, held, num_classes, penalty, None)
        found[held] = logits.softmax(1)
    return found.numpy()


def head_trained_on(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    trained: NDArray[np.bool_],
    num_classes: int,
) -> NDArray[np.float32]:
    """Returns the probabilities of all examples by a softmax regression of some of them.

    The penalty is the one of `PENALTIES` whose head on four fifths of those has the least loss on
    the fifth; then the head is fitted to them all.

    Args:
        features: ``[N, D]``, finite.
        labels: Classes ``0..C-1``, ``[N]``.
        trained: What the head is fitted to, ``[N]``; at least two examples.
        num_classes: C, at least 2.

    Returns:
        float32 ``[N, C]``.
    """
    inputs = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    targets, seen = torch.tensor(labels), torch.tensor(trained)
    some, held = inputs[seen], torch.zeros(int(seen.sum()), dtype=torch.bool)
    held[::_VALIDATED] = True
    penalty = _best_penalty(some, targets[seen], held, num_classes)
    mean, std = some.mean(0), some.std(0).clamp(min=1e-6)
    head = fitted_head((some - mean) / std, targets[seen], num_classes, penalty)
    return torch.addmm(head[-1], (inputs - mean) / std, head[:-1]).softmax(1).numpy()


def _best_penalty(inputs: Tensor, targets: Tensor, held: Tensor, num_classes: int) -> float:
    losses, start = [], None
    for penalty in sorted(PENALTIES, reverse=True):
        logits, start = _held_out_logits(inputs, targets, held, num_classes, penalty, start)
        losses.append((float(F.cross_entropy(logits, targets[held])), penalty))
    return min(losses)[1]


def _held_out_logits(
    inputs: Tensor,
    targets: Tensor,
    held: Tensor,
    num_classes: int,
    penalty: float,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Fits a head on what is not held out; returns logits of what is, and the head."""
    seen = inputs[~held]
    mean, std = seen.mean(0), seen.std(0).clamp(min=1e-6)
    head = fitted_head((seen - mean) / std, targets[~held], num_classes, penalty, start)
    unseen = (inputs[held] - mean) / std
    return torch.addmm(head[-1], unseen, head[:-1]), head


def fitted_head(
    inputs: Tensor, targets: Tensor, num_classes: int, penalty: float, start: Tensor | None = None
) -> Tensor:
    r"""Returns the minimum of a softmax regression, weights and below them biases.

    .. math:: \frac1N \sum_i -\log \mathrm{softmax}(W^\top x_i + b)_{y_i} + \lambda \|W\|^2

    Args:
        inputs: ``[N, D]``.
        targets: Classes, int64 ``[N]``.
        num_classes: C.
        penalty: :math:`\lambda`, above 0; biases are free.
        start: A head to begin from, ``[D + 1, C]``.

    Returns:
        float32 ``[D + 1, C]``.
    """
    # As [C, D + 1]: products of few rows with all examples, where the product of the examples'
    # transpose with few columns takes ten times as long.
    shape = (num_classes, inputs.shape[1] + 1)
    rows = torch.zeros(shape) if start is None else start.T.contiguous().clone()
    rows.requires_grad_()
    solver = torch.optim.LBFGS(
        [rows], max_iter=_STEPS, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        weights, biases = rows[:, :-1], rows[:, -1]
        logits = (weights @ inputs.T).T + biases
        loss = F.cross_entropy(logits, targets) + penalty * (weights**2).sum()
        loss.backward()
        return loss

    solver.step(closure)
    return rows.detach().T.contiguous()
