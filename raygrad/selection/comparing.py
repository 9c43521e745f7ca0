"""Methods that compare examples with one another: blocks of them, chosen one after the other."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import random_bits
from raygrad.selection.quotas import Budget, ClassBalanced, even_quotas

log = logging.getLogger(__name__)

Places = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]
"""The columns of some examples by name: `features` `[N, D]`, `errors` `[N, C]`, `score` `[N]`; in
memory or mapped from a file, of which a block at a time is read."""
BLOCK_SIZE = 20_000
"""The largest set that is searched as one: of 2,048 features it takes 160 MB."""


class Comparing(Protocol):
    """A method that compares examples; its fields are its options."""

    summary: ClassVar[str]
    paper: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    @property
    def block_size(self) -> int:
        """The largest set that is searched as one."""

    def choose(self, block: Arrays, number: int, rng: np.random.Generator) -> Places:
        """Returns the places in a block that are chosen, in order.

        The first few chosen are the same however many are asked for, so that subsets nest.

        Args:
            block: The columns of the block's examples, float32, in an order that their keys decide.
            number: How many are chosen, in [1, size of the block].
            rng: The block's own.
        """


@dataclass(frozen=True)
class Group:
    """Examples that are compared with one another, and how many of them are drawn."""

    members: Places
    """Positions, in an order that keys alone decide."""
    quota: int


def draw_comparing(
    method: Comparing,
    arrays: Arrays,
    hashes: NDArray[np.uint64],
    budget: int,
    *,
    seed: int = 0,
    labels: NDArray[Any] | None = None,
    class_balanced: ClassBalanced = False,
    among: Places | None = None,
) -> Places:
    """Returns the positions drawn by a method that compares examples, in draw order.

    The examples are compared within the group: all of them, or with `class_balanced` each class.
    A group of more than the method's `block_size` is cut into random blocks of even size, which
    share its quota evenly, so that memory is that of a block and time does not grow with the
    square; across blocks nothing is compared. What is drawn depends on keys, columns, seed and
    budget, not on the order of examples, and for one seed subsets of growing budget nest (with
    proportional quotas up to one a class).

    Args:
        method: The method.
        arrays: The columns that it needs; N rows each.
        hashes: The hashes of the N keys.
        budget: How many to draw.
        seed: Changes blocks, random draws and how ties are broken.
        labels: Classes, `[N]`, for `class_balanced`.
        class_balanced: As in `draw`.
        among: The positions that take part; by default all.

    Returns:
        int64 `[budget]`: every group's first choice, then every group's second, and so on.

    Raises:
        ConfigError: The budget or an option is impossible.
    """
    if method.block_size < 2:
        raise ConfigError(f"block_size must be at least 2, got {method.block_size}. Raise it.")
    among = np.arange(len(hashes)) if among is None else among
    order = among[np.argsort(random_bits(seed, hashes[among]), kind="stable")]
    classes = labels if class_balanced else None
    groups = _groups(order, classes, Budget(budget, class_balanced), method.block_size)
    chosen = []
    for number, group in enumerate(groups):
        if group.quota:
            rng = np.random.default_rng([seed % 2**64, number])
            block = {name: _rows(arrays[name], group.members) for name in method.columns}
            chosen.append(group.members[method.choose(block, group.quota, rng)])
    steps = np.concatenate([np.arange(len(of)) for of in chosen])
    return np.concatenate(chosen)[np.argsort(steps, kind="stable")].astype(np.int64)


def _groups(
    order: Places, classes: NDArray[Any] | None, budget: Budget, block_size: int
) -> list[Group]:
    """Returns the groups of the examples in order, each of one block at most."""
    if classes is None:
        sets = [order]
    else:
        of = classes[order]
        sets = [order[of == one] for one in np.unique(of)]
    quotas = budget.over(np.array([len(one) for one in sets], np.int64))
    groups = []
    for members, quota in zip(sets, quotas.tolist(), strict=True):
        blocks = np.array_split(members, -(-len(members) // block_size))
        shares = even_quotas(np.array([len(block) for block in blocks], np.int64), quota)
        groups += [Group(*pair) for pair in zip(blocks, shares.tolist(), strict=True)]
    if len(groups) > len(sets):
        log.info(
            "images are compared within %d random blocks of at most %d, not across them",
            len(groups), block_size,
        )  # fmt: skip
    return groups


def _rows(values: NDArray[Any], at: Places) -> NDArray[Any]:
    """Returns some rows; vectors as float32, single numbers as float64."""
    return np.asarray(values[at], np.float64 if values.ndim == 1 else np.float32)


def finite_rows(arrays: Arrays, columns: tuple[str, ...]) -> NDArray[np.bool_]:
    """Returns which rows are finite in all columns, bool `[N]`; read a block at a time."""
    number = len(arrays[columns[0]])
    finite = np.ones(number, bool)
    for name in columns:
        values = arrays[name]
        width = max(1, int(np.prod(values.shape[1:])))
        step = max(1, 2**22 // width)
        for start in range(0, number, step):
            part = np.isfinite(values[start : start + step])
            finite[start : start + step] &= part if part.ndim == 1 else part.all(axis=1)
    return finite


def from_zero(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns scores that are at least 0: as they are, or counted from the lowest where it is less.

    Args:
        scores: Finite, `[N]`.
    """
    lowest = float(scores.min())
    if lowest >= 0:
        return scores.astype(np.float64)
    log.info("scores below 0 are counted from the lowest, %g", lowest)
    return scores.astype(np.float64) - lowest


def squared_distances(points: NDArray[np.float32], to: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns squared Euclidean distances, float64 `[N, M]`, at least 0.

    By inner products: what differs by less than 1e-3 of its length counts as about the same place.

    Args:
        points: `[N, D]`.
        to: `[M, D]`.
    """
    inner = (points @ to.T).astype(np.float64)
    return np.maximum(squared_lengths(points)[:, None] + squared_lengths(to) - 2.0 * inner, 0.0)


def squared_lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the squared Euclidean length of each row, float64 `[N]`."""
    return np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)


def check_shapes(arrays: Arrays, columns: tuple[str, ...], num_rows: int) -> None:
    """Checks that every column has a row a key, and vectors where vectors are read.

    Raises:
        DataError: One does not.
    """
    for name in columns:
        wanted = 1 if name == "score" else 2
        shape = arrays[name].shape
        if len(shape) != wanted or shape[0] != num_rows or 0 in shape:
            raise DataError(
                f"{name} must have {num_rows} rows of {'vectors' if wanted == 2 else 'numbers'}, "
                f"one a key, got the shape {shape}. Take both from one table."
            )
