"""Which training examples pull an example's loss, by gradients of the last layer."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Factors:
    """The factors of last-layer gradients: that of example i is the outer product of its rows."""

    errors: NDArray[np.floating]
    """The gradients of the losses at the logits, `[N, C]`."""
    features: NDArray[np.floating]
    """What the last layer reads, `[N, D]`."""


def inner_products(of: Factors, queries: Factors) -> NDArray[np.float64]:
    r"""Returns the inner products of last-layer gradients, float64 `[N, Q]`.

    .. math:: \langle g_i, g_q \rangle = (e_i \cdot e_q)(h_i \cdot h_q)

    for the layer's weights; its bias is left out. No gradient is written out. Times the learning
    rate, and summed over checkpoints, this is TracIn-CP restricted to the last layer (Pruthi et
    al. 2020, sections 3.3 and 3.4, arXiv 2002.08484): how much a step on i alone, by plain gradient
    descent at each checkpoint, lowers the loss of q, to first order.

    Args:
        of: Training examples.
        queries: The examples whose losses are pulled.
    """
    errors, features = (
        one.astype(np.float32) @ other.astype(np.float32).T
        for one, other in ((of.errors, queries.errors), (of.features, queries.features))
    )
    return errors.astype(np.float64) * features


class Extremes:
    """The rows of highest and of lowest value for each query, of rows that come in parts.

    It holds twice `number` rows a query and what one part adds.

    Args:
        num_queries: Queries Q.
        number: How many rows of each end are kept.
    """

    def __init__(self, num_queries: int, number: int) -> None:
        self._number = number
        self._kept: list[pa.Table | None] = [None] * num_queries
        self.num_rows = 0

    def add(self, rows: pa.Table, values: NDArray[np.float64]) -> None:
        """Takes a part.

        Args:
            rows: Columns of the part's rows; key settles ties.
            values: Their values for each query, `[n, Q]`.
        """
        self.num_rows += rows.num_rows
        for query, kept in enumerate(self._kept):
            found = rows.append_column("influence", pa.array(values[:, query]))
            whole = found if kept is None else pa.concat_tables([kept, found])
            at = self._ends(whole)
            self._kept[query] = whole.take(pa.array(at))

    def _ends(self, rows: pa.Table) -> NDArray[np.int64]:
        """Returns the places of the rows of both ends, highest value first."""
        keys = np.array(rows["key"].to_pylist(), dtype=object)
        order = np.lexsort((keys.astype(str), -rows["influence"].to_numpy()))
        if len(order) <= 2 * self._number:
            return order
        return np.r_[order[: self._number], order[-self._number :]]

    def table(self, query: int) -> pa.Table:
        """Returns the rows of a query, highest first, with their rank from 1 among all rows."""
        rows = self._kept[query]
        assert rows is not None, "no part was added"
        count, number = rows.num_rows, self.num_rows
        first = (count + 1) // 2 if count < number else count
        ranks = np.r_[np.arange(1, first + 1), np.arange(number - (count - first) + 1, number + 1)]
        return rows.append_column("rank", pa.array(ranks))
