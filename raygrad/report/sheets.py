"""The page's tables: results, costs, provenance and rejects."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow.compute as pc

from raygrad import __version__
from raygrad.report.figures.accuracy import scopes
from raygrad.report.findings import MARGIN
from raygrad.report.markup import table
from raygrad.report.results import (
    BEST_AT_FIRST,
    STILL_IMPROVING,
    Panel,
    panels_of,
    summary_rows,
    trials_of,
)
from raygrad.report.tables import Run
from raygrad.report.wording import count, duration, protocol_words
from raygrad.runs.journal import Entry, wall_s
from raygrad.training.payback import Cell, paybacks

_MAX_REJECTS = 200


def result_sheets(run: Run) -> list[str]:
    """The table of results: one row a network, method, protocol and fraction."""
    if run.results is None:
        return ['<p class="note">There is no sweep yet; `raygrad sweep` retrains on subsets.</p>']
    found = summary_rows(run.results)
    columns: dict[str, tuple[str, list[str | float | int]]] = {
        "network": ("", [r["network"] for r in found]),
        "protocol": ("", [protocol_words(r["protocol"]) for r in found]),
    }
    # What is the same in every row stands above them, which leaves room for the others.
    common = [of[0] for _, of in columns.values() if len(set(of)) == 1]
    columns = {name: column for name, column in columns.items() if len(set(column[1])) > 1}
    columns |= {
        "method": ("", [r["method"] for r in found]),
        "kept (%)": (".4g", [100 * r["keep_fraction"] for r in found]),
        "test accuracy (%)": (".2f", [100 * r["mean"] for r in found]),
        "std": (".2f", [100 * r["std"] for r in found]),
        "trials": ("d", [r["trials"] for r in found]),
        "scoring networks": ("d", [r["score_networks"] for r in found]),
        "still improving": ("d", [r["still_improving"] for r in found]),
        "best at first": ("d", [r["best_at_first"] for r in found]),
    }
    of = f" of {', '.join(str(name) for name in common)}" if common else ""
    return [
        table(
            list(columns),
            list(zip(*(values for _, values in columns.values()), strict=True)),
            f"Test accuracy of every method and fraction{of}: mean and standard deviation over "
            "replicates (the means of scoring networks, or the seeds of one), "
            f"{scopes(panels_of(trials_of(run.results)))}; and how many trials were "
            f"{STILL_IMPROVING}, or {BEST_AT_FIRST}",
            formats=[fmt for fmt, _ in columns.values()],
        )
    ]


def _score_time_s(run: Run, network: str) -> float:
    value = run.manifests.get(network, {}).get("score_time_s")
    return float(value) if isinstance(value, int | float) else math.nan


def cost_sheets(run: Run, panels: Sequence[Panel]) -> list[str]:
    """What each stage took, and after how many retrainings the scores have paid for themselves."""
    stages: list[tuple[str, str, int | None, float]] = []
    for network, metrics in run.metrics.items():
        seconds = float(metrics.get("train_time_s") or math.nan)
        stages.append(("train", network, 1, seconds))
    for network in run.scores:
        stages.append(("score", network, None, _score_time_s(run, network)))
    if run.results is not None and "train_time_s" in run.results.column_names:
        for network in sorted(set(run.results["network"].to_pylist())):
            mine = run.results.filter(pc.equal(run.results["network"], network))
            seconds = pc.sum(mine["train_time_s"]).as_py()
            stages.append(("sweep", network, mine.num_rows, seconds or math.nan))
    out = []
    if stages:
        out.append(
            table(
                ("stage", "network", "trainings", "time (s)"),
                stages,
                "Time of each stage, summed over its trainings",
                formats=("", "", ",d", ",.1f"),
            )
        )
    if run.journal:
        out.append(_wall_times(run.journal))
    rows = _break_even_rows(run, panels)
    if rows:
        out.append(
            table(
                ("network", "method", "kept (%)", "instead of (%)", "saved (s)", "retrainings"),
                rows,
                "Break-even, of subsets within the margin of all data by mean accuracy: "
                "retrainings after which training and scoring once has paid off, in "
                "device-seconds, against the smallest random share that is as accurate by mean; "
                f"{scopes(panels)}",
                formats=("", "", ".4g", ".4g", ",.2f", ",d"),
            )
        )
    return out


def _wall_times(entries: Sequence[Entry]) -> str:
    """How long each stage was worked on, by the clock, whatever ended it."""
    stages = list(dict.fromkeys(entry.stage for entry in entries))
    parts = [(name, [e for e in entries if e.stage == name]) for name in stages]
    parts.append(("all", list(entries)))
    rows = [
        (name, len(of), sum(e.outcome != "complete" for e in of), wall_s(of)) for name, of in parts
    ]
    return table(
        ("stage", "starts", "not finished", "wall time (s)"),
        rows,
        "Wall time of each stage over all its starts, those that were ended too",
        formats=("", ",d", ",d", ",.1f"),
    )


def _score_network(run: Run, network: str) -> str:
    """Whose scores the subsets were drawn from that a network was retrained on."""
    if run.results is None or "score_network" not in run.results.column_names:
        return network
    mine = run.results.filter(pc.equal(run.results["network"], network))
    used = mine["score_network"].drop_null().unique().to_pylist()
    return network if network in used or len(used) != 1 else used[0]


def _break_even_rows(run: Run, panels: Sequence[Panel]) -> list[tuple[str | float | int, ...]]:
    rows: list[tuple[str | float | int, ...]] = []
    for panel in panels:
        # Under equal steps a subset trains as long as all the data: nothing is there to save.
        if panel.protocol != "equal_epochs" or panel.full is None or not run.num_classes:
            continue
        scored_by = _score_network(run, panel.network)
        trained = run.metrics.get(scored_by, {})
        # In device-seconds on both sides: a trial rarely has as many workers as that training had.
        spent = float(trained.get("train_time_s") or math.nan) * int(trained.get("world_size") or 1)
        scoring = _score_time_s(run, scored_by)
        spent += 0.0 if math.isnan(scoring) else scoring
        if math.isnan(spent) or math.isnan(panel.full.device_time_s):
            continue
        cells = {
            name: {
                p.keep_fraction: Cell(p.interval.mean, p.device_time_s)
                for p in points
                if not math.isnan(p.device_time_s)
            }
            for name, points in panel.curves.items()
        }
        full = Cell(panel.full.interval.mean, panel.full.device_time_s)
        for one in paybacks(cells, full, spent, margin=MARGIN, chance=1 / run.num_classes):
            needed = "never" if one.retrainings is None else one.retrainings
            row = (panel.network, one.method, 100 * one.keep_fraction, 100 * one.instead)
            rows.append((*row, one.saved_s, needed))
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif name != "history":
            text = value if isinstance(value, str) else json.dumps(value)
            rows.append((f"{prefix}{name}", text if len(text) <= 300 else f"{text[:300]} ..."))
    return rows


def _fold(title: str, rows: Sequence[tuple[str, str]]) -> str:
    body = table(("name", "value"), rows, title, sortable=False)
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def provenance_sheets(run: Run) -> list[str]:
    """Configuration, versions, digests and seeds of everything that the page shows."""
    out = [f'<p class="note">{escape(run.url)}, reported by raygrad {__version__}.</p>']
    if run.config:
        out.append(_fold("Configuration", _flat(run.config)))
    if run.dataset:
        out.append(_fold("Data set", _flat(run.dataset)))
    out += [_fold(f"Training of {n}", _flat(m)) for n, m in run.metrics.items() if m]
    out += [_fold(f"Scores of {n}", _flat(m)) for n, m in run.manifests.items() if m]
    if run.results is not None:
        out.append(_fold("Sweep", _sweep_rows(run)))
    return out


def _sweep_rows(run: Run) -> list[tuple[str, str]]:
    assert run.results is not None
    rows = [("trials", count(run.results.num_rows))]
    for name in ("seed", "subset_seed", "init_seed", "order_seed", "device", "config_digest"):
        if name in run.results.column_names:
            values = sorted(set(run.results[name].to_pylist()), key=str)
            rows.append((name, ", ".join(str(v) for v in values)))
    if "train_time_s" in run.results.column_names:
        seconds = pc.sum(run.results["train_time_s"]).as_py()
        if seconds is not None:
            rows.append(("training time", duration(seconds)))
    return rows


def reject_sheet(run: Run) -> str:
    """The examples that could not be used, with the reason."""
    if run.rejects is None:
        return '<p class="note">No example was rejected.</p>'
    total = run.rejects.num_rows
    reasons = pc.value_counts(run.rejects["reason"]).to_pylist()
    summary = "; ".join(
        f"{count(r['counts'])} x {r['values']}"
        for r in sorted(reasons, key=lambda r: -r["counts"])[:5]
    )
    names = [n for n in ("stage", "shard", "key", "reason") if n in run.rejects.column_names]
    rows = [tuple(r[n] for n in names) for r in run.rejects.slice(0, _MAX_REJECTS).to_pylist()]
    shown = f", the first {_MAX_REJECTS} of them below" if total > _MAX_REJECTS else ""
    return (
        f"<p>{count(total)} rejected{shown}: {escape(summary)}.</p>"
        f"{table(names, rows, 'Rejected examples')}"
    )
