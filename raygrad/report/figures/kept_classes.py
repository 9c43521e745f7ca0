"""What selection does to the classes: which it keeps more of, and which it loses."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import pyarrow as pa

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.kept import Kept
from raygrad.report.results import BASELINE
from raygrad.report.style import Layout, as_text, panels
from raygrad.report.tables import Run
from raygrad.report.wording import count, listed, percent

_SHOWN = 10  # of more classes than twice this, the most raised and the most lowered are drawn
_REACH = 2.0  # colours end at a quarter and at four times
_ON_DARK, _ON_LIGHT = "#fefefe", "#111111"


def class_shares(labels: np.ndarray, kept: Sequence[Kept]) -> pa.Table:
    """How a class's share of each subset compares with its share of all examples.

    Args:
        labels: Class of each scored example, ``[N]``.
        kept: The subsets.

    Returns:
        method, keep_fraction, label, n (examples kept, the mean over seeds), least (the fewest that
        any seed keeps), share, and ratio: the share over the class's share of all examples.
    """
    size = int(labels.max()) + 1
    usual = np.bincount(labels, minlength=size) / len(labels)
    there = np.flatnonzero(usual)
    parts = []
    for k in kept:
        found = [np.bincount(labels[at], minlength=size) for at in k.positions]
        counts = np.mean(found, axis=0)
        share = counts / counts.sum()
        parts.append(
            pa.table(
                {
                    "method": [k.method] * len(there),
                    "keep_fraction": [k.keep_fraction] * len(there),
                    "label": there,
                    "n": counts[there],
                    "least": np.min(found, axis=0)[there],
                    "share": share[there],
                    "ratio": share[there] / usual[there],
                }
            )
        )
    return pa.concat_tables(parts)


def _matrix(rows: Sequence[Mapping[str, float]], labels: Sequence[int]) -> np.ndarray:
    """Logarithms to base 2 of the ratios, class by share; NaN where nothing was drawn."""
    fractions = sorted({r["keep_fraction"] for r in rows})
    at = {(r["label"], r["keep_fraction"]): r["ratio"] for r in rows}
    ratios = np.array([[at.get((c, f), np.nan) for f in fractions] for c in labels])
    with np.errstate(divide="ignore"):
        return np.asarray(np.log2(ratios))


def _draw(
    rows: Sequence[Mapping[str, float]],
    labels: Sequence[int],
    names: Sequence[str],
    layout: Layout,
) -> matplotlib.figure.Figure:
    methods = sorted({str(r["method"]) for r in rows}, key=lambda m: (m != BASELINE, m))
    figure, axes = panels(layout, len(methods), 1.0 + 0.19 * len(labels))
    image = None
    for method, ax in zip(methods, axes, strict=True):
        mine = [r for r in rows if r["method"] == method]
        fractions = sorted({r["keep_fraction"] for r in mine})
        logs = _matrix(mine, labels)
        image = ax.imshow(
            np.clip(logs, -_REACH, _REACH), cmap="RdBu_r", vmin=-_REACH, vmax=_REACH, aspect="auto"
        )
        for i, j in np.argwhere(np.isneginf(logs)):
            ax.text(j, i, "none", ha="center", va="center", fontsize=6.5, color=_ON_DARK)
        ax.grid(False)
        ax.set_xticks(range(len(fractions)), [percent(f) for f in fractions], fontsize=7)
        ax.set_yticks(range(len(labels)), [as_text(n[:14]) for n in names], fontsize=7)
        ax.tick_params(length=0)
        ax.set_title(as_text(method), fontsize=8)
    assert image is not None
    bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.02, ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["1/4", "1/2", "as many", "x 2", "x 4"], fontsize=7)
    bar.outline.set_visible(False)
    return figure


def _sentence(run: Run, table: pa.Table) -> str:
    """What the sharpest draw loses and raises most; failing that, what any seed's draw loses."""
    everything = table.to_pylist()
    rows = [r for r in everything if r["method"] != BASELINE] or everything
    lost = _lost(run, rows, "n") or _lost(run, everything, "n")
    sometimes = "" if lost else " in some draws"
    lost = lost or _lost(run, everything, "least")
    top = max(rows, key=lambda r: r["ratio"])
    sentence = (
        f"The class raised most is {run.class_name(top['label'])}: {top['ratio']:.2g} times its "
        f"share by {top['method']} at {percent(top['keep_fraction'])}."
    )
    if not lost:
        return f"{sentence} No subset loses a class."
    (method, fraction), names = max(lost.items(), key=lambda item: len(item[1]))
    listing = listed([*names[:5], *([f"{count(len(names) - 5)} more"] if len(names) > 5 else [])])
    return f"{sentence} {method} at {percent(fraction)} keeps no example of {listing}{sometimes}."


def _lost(
    run: Run, rows: Sequence[Mapping[str, Any]], count_by: str
) -> dict[tuple[str, float], list[str]]:
    """The classes of which nothing is kept, by method and share."""
    lost: dict[tuple[str, float], list[str]] = {}
    for r in rows:
        if r[count_by] == 0:
            names = lost.setdefault((r["method"], r["keep_fraction"]), [])
            names.append(run.class_name(r["label"]))
    return lost


def _chosen(table: pa.Table) -> list[int]:
    """The classes to draw: all of a few, else those that the draws raise and lower most."""
    labels = sorted(set(table["label"].to_pylist()))
    if len(labels) <= 2 * _SHOWN:
        return labels
    mean: dict[int, list[float]] = {}
    for r in table.to_pylist():
        if r["method"] != BASELINE:
            mean.setdefault(r["label"], []).append(r["ratio"])
    ordered = sorted(mean or {c: [1.0] for c in labels}, key=lambda c: -np.mean(mean.get(c, [1.0])))
    return [*ordered[:_SHOWN], *ordered[-_SHOWN:]]


def kept_classes_figure(run: Run, network: str, kept: Sequence[Kept]) -> Drawn:
    """Each class's share of every subset against its share of the data, method by method.

    Args:
        run: The run.
        network: Whose scores the subsets were drawn from.
        kept: The subsets.
    """
    title = "What selection does to each class"
    labels = run.scores[network].labels
    if not kept:
        return Missing("kept-classes", title, "There are no subsets; `raygrad select` draws them.")
    if len(np.unique(labels)) < 2:
        return Missing("kept-classes", title, "The scores cover fewer than two classes.")
    table = class_shares(labels, kept)
    names = pa.array([run.class_name(c) for c in table["label"].to_pylist()])
    table = table.append_column("class", names)
    shown = _chosen(table)
    rows = [r for r in table.to_pylist() if r["label"] in set(shown)]
    sentence = _sentence(run, table)
    some = (
        ""
        if len(set(table["label"].to_pylist())) == len(shown)
        else (f" Of the classes, the {_SHOWN} raised most and the {_SHOWN} lowered most.")
    )
    return Figure(
        name="kept-classes",
        title=title,
        caption=(
            "The share of a class in what each method keeps, over its share of all the data: red "
            f"is more, blue less, the mean over {_seeds(kept)}.{some} {sentence}"
        ),
        alt=f"Heatmap of class shares by method and share kept. {sentence}",
        table=table,
        draw=lambda layout: _draw(rows, shown, [run.class_name(c) for c in shown], layout),
    )


def _seeds(kept: Sequence[Kept]) -> str:
    most = max(len(k.seeds) for k in kept)
    return f"{count(most)} draws" if most > 1 else "one draw"
