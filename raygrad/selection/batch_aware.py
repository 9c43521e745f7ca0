"""Batch-aware selection: large gradients that point different ways, from even classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError
from raygrad.selection.comparing import finite_rows
from raygrad.selection.keyed_random import key_hashes, random_bits
from raygrad.selection.quotas import proportional_quotas


@dataclass(frozen=True)
class BatchAware:
    """Large gradients that point different ways, from even classes; see `draw_batch_aware`.

    It compares the examples of a block with one another, and a block's errors and features are in
    memory. It evens classes by itself, so it takes no `class_balanced`.
    """

    num_candidates: int = 512
    balance: float = 1.0
    block_size: int = 100_000
    summary: ClassVar[str] = "large gradients that point different ways, from even classes"
    paper: ClassVar[str] = "Vodrahalli et al. 2018, section 5"
    columns: ClassVar[tuple[str, ...]] = ("errors", "features")


def draw_batch_aware(
    errors: NDArray[np.floating],
    features: NDArray[np.floating],
    labels: NDArray[Any],
    keys: Sequence[str],
    budget: int,
    *,
    seed: int = 0,
    num_candidates: int = 512,
    balance: float = 1.0,
    block_size: int = 100_000,
) -> NDArray[np.int64]:
    r"""Returns positions chosen greedily for norm, low alignment and even classes.

    What the paper's conclusion proposes: importance of batches, with "approximate orthogonality
    of gradients inside a batch and high entropy of class labels". The gradient of the loss by the
    last layer's weights is the outer product :math:`g_i = e_i \otimes h_i` of the error
    :math:`e_i = p_i - y_i` and the feature :math:`h_i`, so inner products factor,

    .. math:: \langle g_i, g_j \rangle = (e_i \cdot e_j)(h_i \cdot h_j),

    and no gradient is written out. With :math:`M = \sum_{j \in S} g_j / \|g_j\|` over the chosen,
    `[C, D]`, and :math:`n_c` the chosen of class c, each step takes the example of largest

    .. math:: \|g_i\| \, (1 - \max(0, \cos(g_i, M))) \, e^{-b (n_{y_i} C / |S| - 1)}

    among `num_candidates` of those left, drawn at random (stochastic greedy, Mirzasoleiman et al.
    2015). Time is O(budget · num_candidates · C · D), memory O(N + C · D) beyond the input. More
    than `block_size` examples are cut into random blocks that each give their share, so that the
    greedy step knows most of what it is compared with.

    Args:
        errors: Softmax output minus one-hot label, `[N, C]`.
        features: What the last layer reads, `[N, D]`.
        labels: Classes, `[N]`.
        keys: The examples' keys, unique, N of them.
        budget: How many to draw, in [1, N].
        seed: Changes blocks and candidates; the draw does not depend on the order of examples.
        num_candidates: Examples looked at in a step; from N up it is the exact greedy.
        balance: How strongly classes are kept even; 0 leaves them alone.
        block_size: The largest set that is searched as one.

    Returns:
        int64 `[budget]`; in one block, in the order chosen, so that growing budgets nest.

    Raises:
        ConfigError: The budget or an option is impossible.
        DataError: The arrays are not of one length, or not finite.
    """
    _check_options(len(keys), budget, num_candidates, balance, block_size)
    _check_arrays(errors, features, labels, keys)
    classes = np.unique(labels, return_inverse=True)[1]
    blocks = _random_blocks(keys, seed, block_size)
    quotas = proportional_quotas(np.array([len(block) for block in blocks]), budget)
    chosen = []
    for at, (block, quota) in enumerate(zip(blocks, quotas.tolist(), strict=True)):
        rng = np.random.default_rng([seed % 2**64, at])
        parts = _wide(errors[block]), _wide(features[block]), classes[block]
        chosen.append(block[_greedy(*parts, quota, rng, num_candidates, balance)])
    return np.concatenate(chosen).astype(np.int64)


def _random_blocks(keys: Sequence[str], seed: int, block_size: int) -> list[NDArray[np.int64]]:
    """Returns positions in a random order that keys alone decide, cut into blocks of even size."""
    order = np.argsort(random_bits(seed, key_hashes(keys)), kind="stable")
    return np.array_split(order, -(-len(order) // block_size))


def _check_options(
    count: int, budget: int, num_candidates: int, balance: float, block_size: int
) -> None:
    if not 1 <= budget <= count:
        raise ConfigError(f"budget must be in [1, {count}], got {budget}. Lower keep_fraction.")
    if num_candidates < 1 or block_size < 1 or balance < 0:
        raise ConfigError(
            "num_candidates and block_size must be at least 1 and balance at least 0, got "
            f"{num_candidates}, {block_size} and {balance}."
        )


def _check_arrays(
    errors: NDArray[np.floating],
    features: NDArray[np.floating],
    labels: NDArray[Any],
    keys: Sequence[str],
) -> None:
    lengths = {len(errors), len(features), len(labels), len(keys)}
    if len(lengths) > 1:
        raise DataError(f"errors, features, labels and keys must match, got {sorted(lengths)}.")
    arrays = {"errors": errors, "features": features}
    if len(keys) and not finite_rows(arrays, ("errors", "features")).all():
        raise DataError("errors and features must be finite, got some that are not. Score again.")


def _wide(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns half precision, in which features are stored, as float32; the rest as it is."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def mean_alignment(errors: NDArray[np.floating], features: NDArray[np.floating]) -> float:
    """Returns the mean cosine between the gradients of all pairs of different examples.

    Exact in O(N C D): the sum over pairs is the squared norm of the sum of unit gradients.
    Examples of zero gradient count as orthogonal to all.

    Args:
        errors: Errors of the examples, `[N, C]`, N at least 2.
        features: Their features, `[N, D]`.
    """
    unit_errors, unit_features, _ = _units(errors, features)
    total = unit_errors.T.astype(np.float64) @ unit_features.astype(np.float64)
    itself = float(((unit_errors**2).sum(1) * (unit_features**2).sum(1)).sum(dtype=np.float64))
    return float(((total**2).sum() - itself) / (len(errors) * (len(errors) - 1)))


def _units(
    errors: NDArray[np.floating], features: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.float64]]:
    """Returns unit errors, unit features, and the norms of the gradients."""
    error_norms = np.linalg.norm(errors, axis=1)
    feature_norms = np.linalg.norm(features, axis=1)
    unit_errors = errors / np.where(error_norms > 0, error_norms, 1)[:, None]
    unit_features = features / np.where(feature_norms > 0, feature_norms, 1)[:, None]
    return unit_errors, unit_features, error_norms.astype(np.float64) * feature_norms


def _greedy(
    errors: NDArray[np.floating],
    features: NDArray[np.floating],
    classes: NDArray[np.int64],
    budget: int,
    rng: np.random.Generator,
    num_candidates: int,
    balance: float,
) -> NDArray[np.int64]:
    """Returns the places chosen, in order."""
    unit_errors, unit_features, norms = _units(errors, features)
    total = np.zeros((errors.shape[1], features.shape[1]), unit_errors.dtype)
    length2 = 0.0
    num_classes = int(classes.max()) + 1
    counts = np.zeros(num_classes)
    left = np.arange(len(norms))  # The first `size` places are of those not chosen yet.
    chosen = np.empty(budget, np.int64)
    for step in range(budget):
        size = len(left) - step
        # Candidates may repeat, which costs nothing; all are looked at where they are few.
        spots = np.arange(size) if size <= num_candidates else rng.integers(0, size, num_candidates)
        at = left[spots]
        inner = np.einsum("nd,nd->n", unit_errors[at] @ total, unit_features[at])
        aligned = np.clip(inner / np.sqrt(max(length2, 1e-30)), 0, 1)
        uneven = counts[classes[at]] * num_classes / max(step, 1)
        gain = norms[at] * (1 - aligned) * np.exp(-balance * (uneven - 1))
        best = int(np.argmax(gain))
        pick = int(at[best])
        chosen[step] = pick
        left[spots[best]] = left[size - 1]
        own = float(unit_errors[pick] @ unit_errors[pick]) * float(
            unit_features[pick] @ unit_features[pick]
        )
        length2 += 2 * float(inner[best]) + own
        total += np.outer(unit_errors[pick], unit_features[pick])
        counts[classes[pick]] += 1
    return chosen
