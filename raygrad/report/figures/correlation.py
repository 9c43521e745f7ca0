"""Which scores say the same: rank correlations between all score columns."""

from collections.abc import Mapping

import matplotlib.figure
import numpy as np
import pyarrow as pa

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.style import Layout, as_text, new_figure
from raygrad.report.tables import Run, Scores, matched, number_columns, positions_of
from raygrad.selection.analysis import rank_correlation
from raygrad.selection.rows import EASIER_IS_HIGHER

# Text on coloured cells: unlike the ink of other figures it does not follow the page's theme.
_ON_DARK, _ON_LIGHT = "#fefefe", "#111111"


def as_hardness(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """A column under its name; a probability of the label as 1 less itself, so higher is harder."""
    return (f"1 - {name}", 1 - values) if name in EASIER_IS_HIGHER else (name, values)


def own_columns(scores: Scores, column: str) -> dict[str, np.ndarray]:
    """All columns of a score table, of which the one that orders it keeps its name and its sign."""
    named = ((c, scores.values(c)) for c in scores.columns)
    return dict((c, v) if c == column else as_hardness(c, v) for c, v in named)


def gathered_columns(run: Run, network: str, column: str) -> dict[str, np.ndarray]:
    """All columns to compare, over the examples of one network's score table.

    The network's own scores and training dynamics under their names, and the other networks'
    values of the main column under theirs; NaN where another table lacks an example. Higher is
    harder for all: a probability of the label stands as 1 less itself.
    """
    scores = run.scores[network]
    keys = scores.table["key"]
    out = own_columns(scores, column)
    dynamics = run.dynamics.get(network)
    if dynamics is not None and "key" in dynamics.column_names:
        at = positions_of(keys, dynamics)
        for name in number_columns(dynamics):
            out.setdefault(*as_hardness(name, matched(dynamics[name], at)))
    for other, table in run.scores.items():
        if other != network and column in table.columns:
            at = positions_of(keys, table.table)
            out[f"{other}: {column}"] = matched(table.table[column], at)
    return out


def rank_correlations(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Spearman's rank correlation of each pair of columns, over the examples that have both.

    Args:
        columns: Columns of one length; NaN marks what is missing, infinities are ranked.

    Returns:
        float64 ``[C, C]``, NaN where a column does not vary.
    """
    # Infinite scores, such as forgetting's of an example never learned, rank beyond all others.
    largest = np.finfo(np.float64).max
    values = np.stack([np.clip(v, -largest, largest) for v in columns.values()], axis=1)
    missing = np.isnan(values)
    partly = missing.any(axis=0)
    out = np.eye(values.shape[1])
    if not partly.all():
        out[np.ix_(~partly, ~partly)] = rank_correlation(values[:, ~partly])
    for i in np.flatnonzero(partly):
        for j in range(values.shape[1]):
            both = ~(missing[:, i] | missing[:, j])
            if i != j:
                pair = rank_correlation(values[both][:, [i, j]])[0, 1] if both.any() else np.nan
                out[i, j] = out[j, i] = pair
    return out


def _draw(names: list[str], matrix: np.ndarray, layout: Layout) -> matplotlib.figure.Figure:
    size = len(names)
    side = min(layout.width_in, 2.2 + 0.42 * size)
    figure = new_figure(layout, side * 0.9)
    ax = figure.add_subplot()
    ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    small = 6.5 if size > 8 or layout.columns == 1 else 7.5
    # A phone has no room for many names twice: below stand their numbers.
    numbered = size > 8 and layout.columns == 1
    if size * 0.3 < layout.width_in:
        for i in range(size):
            for j in range(size):
                if not np.isnan(matrix[i, j]):
                    ax.text(
                        j,
                        i,
                        f"{matrix[i, j]:.2f}".replace("0.", "."),
                        ha="center",
                        va="center",
                        fontsize=small,
                        color=_ON_DARK if abs(matrix[i, j]) > 0.6 else _ON_LIGHT,
                    )
    names = [as_text(name) for name in names]
    if numbered:
        labels = [f"{name}  {at}" for at, name in enumerate(names, 1)]
        ax.set_yticks(range(size), labels, fontsize=small)
        ax.set_xticks(range(size), [str(at) for at in range(1, size + 1)], fontsize=small)
    else:
        ax.set_yticks(range(size), names, fontsize=small)
        ax.set_xticks(range(size), names, fontsize=small, rotation=40, ha="right")
    ax.tick_params(length=0)
    return figure


def correlation_figure(run: Run, network: str, column: str) -> Drawn:
    """The matrix of Spearman's rank correlations between all scores of a network.

    Args:
        run: The run.
        network: Whose scores.
        column: The main score; other networks' values of it are compared too.
    """
    title = "Which scores agree"
    columns = gathered_columns(run, network, column)
    if len(columns) < 2:
        return Missing("correlation", title, "The score table has one score only.")
    names, matrix = list(columns), rank_correlations(columns)
    main = names.index(column)
    others = [(matrix[main, i], n) for i, n in enumerate(names) if i != main]
    known = sorted((r, n) for r, n in others if not np.isnan(r))
    caption = (
        f"Spearman's rank correlation between the scores of {network}; 1 means that two scores "
        f"order the examples alike."
    )
    if known:
        (low, last), (high, first) = known[0], known[-1]
        caption += f" {column} agrees most with {first} ({high:.2f})"
        caption += f" and least with {last} ({low:.2f})." if len(known) > 1 else "."
    table = pa.table({"score": names, **{n: matrix[:, i] for i, n in enumerate(names)}})
    return Figure(
        name="correlation",
        title=title,
        caption=caption,
        alt=f"Matrix of rank correlations. {caption}",
        table=table,
        draw=lambda layout: _draw(names, matrix, layout),
    )
