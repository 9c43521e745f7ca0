"""Gradient norms of a fixed set of examples over training (the paper's Figures 2 and 5)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.style import INK, Layout, as_text, panels
from raygrad.report.tables import Run
from raygrad.report.wording import count, listed, times

_DECAY = 1.5  # a rate that falls by this factor between two epochs was decayed, not annealed


@dataclass(frozen=True)
class Probe:
    """The probe of one network as a matrix.

    Attributes:
        network: The network.
        keys: The examples, by rising final norm, ``[N]``.
        epochs: Epoch numbers as training counts them, ``[E]``.
        norms: Gradient norms, float64 ``[N, E]``; NaN where the probe has none.
        decays: Epochs after which the learning rate fell.
    """

    network: str
    keys: tuple[str, ...]
    epochs: np.ndarray
    norms: np.ndarray
    decays: tuple[float, ...]

    def spread(self, epoch: int) -> float:
        """Ratio of the 90th to the 10th percentile of the norms at a position of ``epochs``."""
        low, high = np.nanpercentile(self.norms[:, epoch], [10, 90])
        return float(high / low) if low > 0 else float("inf")


def learning_rate_decays(history: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """Where the learning rate fell by a factor of 1.5 or more, as a place between two epochs.

    Args:
        history: ``metrics.json``'s history, one dict an epoch.
    """
    rates = [(int(h["epoch"]), float(h["learning_rate"])) for h in history if "learning_rate" in h]
    return tuple(
        (e0 + e1) / 2
        for (e0, r0), (e1, r1) in itertools.pairwise(rates)
        if r1 > 0 and r0 / r1 >= _DECAY
    )


def probe_matrix(
    network: str, table: pa.Table, column: str, history: Sequence[Mapping[str, Any]]
) -> Probe:
    """The probe table as a matrix of examples by epochs, rows sorted by their final norm.

    Args:
        network: Its name.
        table: ``probe.parquet``: epoch, key and score columns.
        column: Which column.
        history: ``metrics.json``'s history, for the learning rate.
    """
    keys, row = np.unique(np.asarray(table["key"].to_pylist(), dtype=object), return_inverse=True)
    epochs, place = np.unique(table["epoch"].to_numpy(), return_inverse=True)
    norms = np.full((len(keys), len(epochs)), np.nan)
    norms[row, place] = table[column].cast(pa.float64()).to_numpy()
    order = np.argsort(norms[:, -1], kind="stable")
    return Probe(
        network,
        tuple(str(keys[i]) for i in order),
        epochs,
        norms[order],
        learning_rate_decays(history),
    )


def _heat(ax: Axes, probe: Probe, norm: LogNorm, title_pad: float) -> Any:
    first, last = probe.epochs[0], probe.epochs[-1]
    image = ax.imshow(
        np.maximum(probe.norms, norm.vmin or 0.0),
        aspect="auto",
        origin="lower",
        cmap="magma_r",
        norm=norm,
        interpolation="none",
        extent=(first - 0.5, last + 0.5, 0, len(probe.keys)),
    )
    for decay in probe.decays:
        ax.axvline(decay, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        ax.annotate(
            "decay",
            (decay, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    ax.grid(False)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("example, easiest to hardest")
    ax.set_title(as_text(probe.network), pad=title_pad)
    return image


def _draw(probes: Sequence[Probe], layout: Layout, column: str) -> matplotlib.figure.Figure:
    positive = np.concatenate([p.norms[p.norms > 0] for p in probes])
    # A handful of all but zero norms would take the whole scale; colours start at the 1% quantile.
    norm = LogNorm(float(np.quantile(positive, 0.01)), float(positive.max()))
    figure, axes = panels(layout, len(probes), 3.4)
    image = None
    for probe, ax in zip(probes, axes, strict=True):
        image = _heat(ax, probe, norm, 12 if any(p.decays for p in probes) else 6)
    assert image is not None
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, extend="min")
    bar.set_label(as_text(column), fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _sentence(p: Probe) -> str:
    return (
        f"{p.network}: the 90th percentile is {times(p.spread(0))} times the 10th after epoch "
        f"{p.epochs[0]} and {times(p.spread(-1))} times after epoch {p.epochs[-1]}; the median "
        f"norm goes from {np.nanmedian(p.norms[:, 0]):.3g} to {np.nanmedian(p.norms[:, -1]):.3g}"
    )


def heatmap_figure(run: Run, column: str | None) -> Drawn:
    """Gradient norms of the probe's examples over epochs, by network (Figs. 2 and 5).

    Args:
        run: The run.
        column: The norm to show; where the probe lacks it, its first gradient norm.
    """
    title = "Gradient norms during training"
    probes, shown = [], ""
    for network, table in run.probe.items():
        norms = [c for c in table.column_names if c.startswith("grad_")]
        name = column if column in norms else next(iter(norms), None)
        if name is not None and table.num_rows:
            shown = shown or name
            history = run.metrics.get(network, {}).get("history", ())
            probes.append(probe_matrix(network, table, name, history))
    if not probes:
        reason = "Training kept no probe of gradient norms (train/<network>/probe.parquet)."
        return Missing("heatmap", title, reason)
    decays = any(p.decays for p in probes)
    sizes = listed([count(len(p.keys)) for p in probes])
    return Figure(
        name="heatmap",
        title=title,
        caption=(
            f"{shown} of {sizes} training examples after each epoch, sorted by the last; dark is "
            f"large and the scale is logarithmic. Rows that stay dark are the examples that "
            f"training still works on. {'. '.join(_sentence(p) for p in probes)}."
            + (" Dashed lines mark decays of the learning rate." if decays else "")
        ),
        alt="Heatmap of gradient norms, examples by epochs. "
        + ". ".join(_sentence(p) for p in probes),
        table=pa.concat_tables([_long(p, shown) for p in probes]),
        draw=lambda layout: _draw(probes, layout, shown),
    )


def _long(probe: Probe, column: str) -> pa.Table:
    n, e = probe.norms.shape
    return pa.table(
        {
            "network": pa.array([probe.network] * (n * e)),
            "key": pa.array(np.repeat(np.asarray(probe.keys, dtype=object), e), pa.string()),
            "epoch": pa.array(np.tile(probe.epochs, n), pa.int64()),
            column: pa.array(probe.norms.ravel()),
        }
    )
