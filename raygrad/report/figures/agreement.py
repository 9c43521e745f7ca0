"""Which scores would choose the same examples: the share of their top 1, 5 and 10% in common.

A rank correlation is mostly about the easy many; a subset is made of the hardest few. Two scores
can correlate at 0.9 and share a third of their top 1%.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import pyarrow as pa

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.figures.correlation import gathered_columns, rank_correlations
from raygrad.report.style import MUTED, Layout, SeriesStyle, as_text, new_figure, series_styles
from raygrad.report.tables import Run
from raygrad.report.wording import count, listed, percent, top_words

SHARES = (0.01, 0.05, 0.1)


def _top_sizes(number: int) -> list[int]:
    """How many of so many examples each share's hardest are: one at least."""
    return [max(1, math.floor(share * number)) for share in SHARES]


def top_chances(values: np.ndarray, k: int) -> np.ndarray:
    """How likely each value is among the k largest, where equal ones are taken at random.

    A score of few values, such as forgetting's counts, has no k largest of its own.

    Args:
        values: Of any size, not NaN; infinities are the largest.
        k: From 1 to their number.

    Returns:
        float64 ``[N]``: 1 above the k-th largest, 0 below it, a share of what is left at it.
    """
    last = np.partition(values, -k)[-k]
    above, at = values > last, values == last
    return above + at * ((k - above.sum()) / at.sum())


def shared_tops(columns: Mapping[str, np.ndarray], column: str) -> pa.Table:
    """What each other score has in common with one of them.

    Args:
        columns: Scores of one length, higher = harder; NaN where missing.
        column: The score that the others are set against.

    Returns:
        score, rank_correlation, and top_1, top_5, top_10: the share in [0, 1] of the hardest 1, 5
        and 10% in common, on average where equal scores are taken at random; of the examples that
        both scores have. By falling top_5.
    """
    rows: list[tuple[Any, ...]] = []
    main = columns[column]
    for name, values in columns.items():
        if name == column:
            continue
        both = np.flatnonzero(~np.isnan(main) & ~np.isnan(values))
        if len(both) < 2:
            continue
        tops = _top_sizes(len(both))
        chances = [[top_chances(of[both], k) for of in (main, values)] for k in tops]
        shared = [float(one @ other) / k for k, (one, other) in zip(tops, chances, strict=True)]
        r = float(rank_correlations({"a": main[both], "b": values[both]})[0, 1])
        rows.append((name, r, *shared))
    rows.sort(key=lambda row: (-row[3], row[0]))
    names = ("score", "rank_correlation", "top_1", "top_5", "top_10")
    return pa.table({n: [row[i] for row in rows] for i, n in enumerate(names)})


def _draw(
    rows: Sequence[Mapping[str, float]], tops: Sequence[str], layout: Layout
) -> matplotlib.figure.Figure:
    figure = new_figure(layout, 1.0 + 0.3 * len(rows))
    ax = figure.add_subplot()
    y = np.arange(len(rows))[::-1]
    looks = series_styles(f"top_{round(100 * s)}" for s in SHARES)
    ax.plot(
        [100 * r["rank_correlation"] for r in rows],
        y,
        linestyle="none",
        marker="|",
        markersize=11,
        markeredgewidth=1.4,
        color=MUTED,
        label="rank correlation x 100",
    )
    named = zip(SHARES, tops, sorted(looks.items(), key=_number), strict=True)
    for share, top, (name, style) in named:
        ax.plot(
            [100 * r[name] for r in rows],
            y,
            linestyle="none",
            marker=style.marker,
            markersize=5.5,
            color=style.color,
            markeredgecolor="none",
            label=f"top {top}",
        )
        ax.axvline(100 * share, color=style.color, linewidth=0.7, linestyle=(0, (2, 3)))
    ax.set_yticks(y, [as_text(str(r["score"])) for r in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    low = min([0.0, *(100 * r["rank_correlation"] for r in rows)])
    ax.set_xlim(low - 3, 103)
    ax.set_xlabel("in common (%)")
    figure.legend(loc="outside upper left", ncols=4 if layout.columns > 1 else 2)
    return figure


def _number(item: tuple[str, SeriesStyle]) -> int:
    return int(item[0].removeprefix("top_"))


def _row_words(row: Mapping[str, Any]) -> str:
    tops = f"{percent(row['top_1'])}, {percent(row['top_5'])} and {percent(row['top_10'])}"
    r = row["rank_correlation"]
    return f"{row['score']}: {tops}" + ("" if np.isnan(r) else f" (rank correlation {r:.2f})")


def agreement_figure(run: Run, network: str, column: str) -> Drawn:
    """What share of the hardest each other score has in common with the main one.

    Args:
        run: The run.
        network: Whose scores.
        column: The main score.
    """
    title = "Would another score choose the same?"
    columns = gathered_columns(run, network, column)
    table = shared_tops(columns, column)
    if not table.num_rows:
        return Missing("agreement", title, "The score table has one score only.")
    rows = table.to_pylist()
    first, last = rows[0], rows[-1]
    extremes = f"The most in common has {_row_words(first)}"
    extremes += f"; the least {_row_words(last)}" if len(rows) > 1 else ""
    number = len(columns[column])
    tops = [top_words(s, k, number) for s, k in zip(SHARES, _top_sizes(number), strict=True)]
    usual = tops == [percent(share) for share in SHARES]
    hardest = "1, 5 and 10%" if usual else listed(tops)
    return Figure(
        name="agreement",
        title=title,
        caption=(
            f"The share of the hardest {hardest} of {count(number)} examples by {column} of "
            f"{network} that are the hardest by another score too; dotted, what chance gives. The "
            f"correlation of all ranks, which the easy many decide, stands beside it. {extremes}."
        ),
        alt=f"Dot plot of shared top shares. {extremes}.",
        table=table,
        draw=lambda layout: _draw(rows, tops, layout),
    )
