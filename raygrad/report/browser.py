"""The image browser's data: a few thousand examples with all that the tables say of them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.report.examples import hardest_first
from raygrad.report.figures.correlation import as_hardness, own_columns
from raygrad.report.kept import Kept, members
from raygrad.report.markup import json_script
from raygrad.report.tables import Run, Scores, matched, number_columns, positions_of
from raygrad.report.thumbnails import SMALL_SIDE, Thumbnail
from raygrad.report.wording import count, percent


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]


def _infinite(values: np.ndarray) -> list[int]:
    return np.flatnonzero(np.isposinf(values)).tolist()


def histories(run: Run, network: str, keys: list[str]) -> dict[str, dict[str, Any]]:
    """The probe's columns over epochs, of those of the keys that the probe holds.

    Args:
        run: The run.
        network: Whose probe.
        keys: The browser's examples.

    Returns:
        By key: ``epochs`` and one list a column.
    """
    table = run.probe.get(network)
    if table is None:
        return {}
    table = table.filter(pc.is_in(table["key"].cast(pa.string()), value_set=pa.array(keys)))
    columns = [c for c in table.column_names if c not in ("key", "epoch")]
    out: dict[str, dict[str, Any]] = {}
    for row in table.sort_by([("epoch", "ascending")]).to_pylist():
        entry = out.setdefault(row["key"], {"epochs": [], **{c: [] for c in columns}})
        entry["epochs"].append(row["epoch"])
        for c in columns:
            value = row[c]
            entry[c].append(None if value is None else float(f"{value:.4g}"))
    return out


def browser_data(
    run: Run,
    network: str,
    column: str,
    positions: np.ndarray,
    thumbnails: Mapping[str, Thumbnail],
    kept: Sequence[Kept] = (),
) -> dict[str, Any]:
    """What the page's script needs, as JSON: one list a field, one entry an example.

    Args:
        run: The run.
        network: Whose scores.
        column: The score that orders the examples at first.
        positions: Rows of the score table to show; those without a picture are left out.
        thumbnails: Pictures by key.
        kept: The subsets that an example's details name.
    """
    scores: Scores = run.scores[network]
    part = scores.table.take(pa.array(positions))
    keys = [str(k) for k in part["key"].to_pylist()]
    have = np.array([k in thumbnails for k in keys], dtype=bool)
    part, positions = part.filter(pa.array(have)), positions[have]
    keys = [k for k, h in zip(keys, have, strict=True) if h]
    columns = {c: values[positions] for c, values in own_columns(scores, column).items()}
    dynamics = run.dynamics.get(network)
    if dynamics is not None and "key" in dynamics.column_names:
        at = positions_of(part["key"], dynamics)
        for name in number_columns(dynamics):
            columns.setdefault(*as_hardness(name, matched(dynamics[name], at)))
    ranks = np.empty(len(scores.labels), dtype=np.int64)
    ranks[hardest_first(scores.values(column))] = np.arange(len(ranks))
    predictions = None if scores.predictions is None else scores.predictions[positions].tolist()
    labels = scores.labels[positions]
    used = sorted({*labels.tolist(), *(p for p in predictions or [] if p >= 0)})
    return {
        "network": network,
        "column": column,
        "total": len(ranks),
        "classes": {str(c): run.class_name(int(c)) for c in used},
        "keys": keys,
        "shards": [str(s).rpartition("/")[2] for s in part["shard"].to_pylist()],
        "labels": labels.tolist(),
        "predictions": predictions,
        "ranks": ranks[positions].tolist(),
        "columns": {c: _rounded(v) for c, v in columns.items()},
        "infinite": {c: at for c, v in columns.items() if (at := _infinite(v))},
        "subsets": [[k.method, percent(k.keep_fraction), len(k.seeds)] for k in kept],
        "members": members(kept, positions) if kept else [],
        "history": histories(run, network, keys),
        "small": all(max(thumbnails[k].pixels.shape[:2]) <= SMALL_SIDE for k in keys),
        "images": [thumbnails[k].data_uri for k in keys],
    }


def browser_markup(data: Mapping[str, Any], name: str) -> str:
    """The browser's controls and its data; ``page.js`` brings it to life.

    Args:
        data: From :func:`browser_data`.
        name: Prefix of its ids.
    """
    classes = "".join(
        f'<option value="{value}">{escape(text)}</option>'
        for value, text in data["classes"].items()
    )
    columns = "".join(
        f"<option{' selected' if c == data['column'] else ''}>{escape(c)}</option>"
        for c in data["columns"]
    )
    predicted = (
        f'<label>predicted <select name="prediction"><option value="">any</option>{classes}'
        '</select></label><label class="check"><input type="checkbox" name="wrong"> wrong only'
        "</label>"
        if data["predictions"] is not None
        else ""
    )
    shown, total = count(len(data["keys"])), count(data["total"])
    return (
        f'<div class="browser" id="{name}"><h3>Browse the images</h3>'
        f'<p class="note">{shown} of {total} training examples: '
        f"{'all of them' if shown == total else 'the extremes whole, the rest at even ranks'}. "
        f"Click one for its scores{' and its history' if data['history'] else ''}.</p>"
        '<form class="controls" autocomplete="off">'
        f'<label>sort by <select name="column">{columns}</select></label>'
        '<label>from the <select name="order"><option value="hard">hardest</option>'
        '<option value="easy">easiest</option></select></label>'
        f'<label>class <select name="label"><option value="">any</option>{classes}</select></label>'
        f"{predicted}"
        "<fieldset><legend>band, % from the hardest</legend>"
        '<input type="number" name="from" min="0" max="100" step="any" value="0" '
        'aria-label="band from, percent"> to <input type="number" name="to" min="0" max="100" '
        'step="any" value="100" aria-label="band to, percent"></fieldset></form>'
        f'<p class="note status" role="status"></p>'
        '<button type="button" class="copy" data-copies="shown" hidden>copy the keys</button>'
        f'<ul class="strip{" pixels" if data["small"] else ""}"></ul>'
        '<button type="button" class="more" hidden>show more</button>'
        f"{json_script(data)}</div>"
    )
