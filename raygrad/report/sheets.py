"""The page's tables: results, costs, provenance and rejects."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow.compute as pc

from raygrad import __version__
from raygrad.report.figures.cost import break_even
from raygrad.report.markup import table
from raygrad.report.results import FULL, Panel, summary_rows
from raygrad.report.tables import Run
from raygrad.report.wording import count, duration, protocol_words
from raygrad.runs.journal import Entry, wall_s

_MAX_REJECTS = 200


def result_sheets(run: Run) -> list[str]:
    """The table of results: one row a network, method, protocol and fraction."""
    if run.results is None:
        return ['<p class="note">There is no sweep yet; `raygrad sweep` retrains on subsets.</p>']
    rows = [
        (
            r["network"],
            r["method"],
            protocol_words(r["protocol"]),
            100 * r["keep_fraction"],
            r["n"],
            100 * r["mean"],
            100 * r["std"],
        )
        for r in summary_rows(run.results)
    ]
    return [
        table(
            ("network", "method", "protocol", "kept (%)", "seeds", "test accuracy (%)", "std"),
            rows,
            "Test accuracy of every method and fraction: mean and standard deviation over seeds",
            formats=("", "", "", ".4g", "d", ".2f", ".2f"),
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
                ("network", "protocol", "kept (%)", "saved a retraining (s)", "retrainings"),
                rows,
                "Break-even: retrainings after which training and scoring once has paid off",
                formats=("", "", ".4g", ",.2f", ",d"),
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


def _break_even_rows(
    run: Run, panels: Sequence[Panel]
) -> list[tuple[str, str, float, float, int | str]]:
    rows: list[tuple[str, str, float, float, int | str]] = []
    for panel in panels:
        scored_by = _score_network(run, panel.network)
        spent = float(run.metrics.get(scored_by, {}).get("train_time_s") or math.nan)
        scoring = _score_time_s(run, scored_by)
        spent += 0.0 if math.isnan(scoring) else scoring
        if panel.full is None or math.isnan(spent) or math.isnan(panel.full.train_time_s):
            continue
        times: dict[float, list[float]] = {}
        for points in panel.curves.values():
            for p in points:
                if p.keep_fraction < FULL and not math.isnan(p.train_time_s):
                    times.setdefault(p.keep_fraction, []).append(p.train_time_s)
        for fraction, values in sorted(times.items()):
            saved = panel.full.train_time_s - math.fsum(values) / len(values)
            needed = break_even(spent, saved)
            rows.append(
                (
                    panel.network,
                    protocol_words(panel.protocol),
                    100 * fraction,
                    saved,
                    "never" if needed is None else needed,
                )
            )
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
