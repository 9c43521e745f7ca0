"""The pictures of an audit, to be browsed, filtered and copied as a list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raygrad.report.markup import json_script
from raygrad.report.thumbnails import SMALL_SIDE, Thumbnail
from raygrad.report.wording import count

MOST = {
    "suspects": 600,
    "contradictions": 300,
    "leaks": 300,
    "repeats": 600,
    "outliers": 200,
    "dropped": 200,
    "kept": 200,
}
"""How many examples of each list have a picture on the page."""

NAMES = {
    "suspects": "likely wrong labels",
    "contradictions": "repeats under several labels",
    "leaks": "repeats across training and test",
    "repeats": "repeats, group after group",
    "outliers": "outliers, farthest first",
    "dropped": "dropped",
    "kept": "kept",
}


@dataclass(frozen=True)
class View:
    """One list of the page: rows of a table in its order, and how many there are in all."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    total: int

    @property
    def keys(self) -> list[str]:
        """The keys that need a picture."""
        return [str(row["key"]) for row in self.rows]


def views(tables: Mapping[str, pa.Table]) -> list[View]:
    """Returns the lists that an audit's tables fill; those without an example are left out.

    Args:
        tables: Of `read_audit`.
    """
    labels = tables["labels"]
    facts = labels.select(["key", "file", "split", "label_name", "suggested_name", "confidence"])
    odd = pc.not_equal(tables["outliers"]["reason"], "")
    repeats = tables["repeats"]
    shown = {
        "suspects": labels.filter(labels["suspect"]),
        "contradictions": repeats.filter(repeats["across_labels"]),
        "leaks": repeats.filter(repeats["across_splits"]),
        "repeats": repeats,
        "outliers": tables["outliers"].filter(odd),
        "dropped": tables["drop"],
        "kept": tables["keep"],
    }
    found = []
    for name, table in shown.items():
        # Of lists in no order of their own an even sample, so that all classes are seen.
        step = max(1, -(-table.num_rows // MOST[name])) if name in ("kept", "dropped") else 1
        part = table.take(pa.array(range(0, table.num_rows, step), pa.int64())).slice(0, MOST[name])
        at = pc.index_in(part["key"], value_set=labels["key"].combine_chunks())
        known = facts.take(at.combine_chunks())
        rows = [
            {**base, "note": _note(name, row), "group": row.get("group", 0)}
            for base, row in zip(known.to_pylist(), part.to_pylist(), strict=True)
        ]
        if rows:
            found.append(View(name, rows, table.num_rows))
    return found


def _note(name: str, row: Mapping[str, Any]) -> str:
    """What the page says under a picture beside its label."""
    if name == "suspects":
        return f"rather {row['suggested_name']}, {row['confidence']:.0%}"
    if "group" in row:
        parts = [f"group {row['group']}", str(row["kind"])]
        parts += [str(row["split"])] if row["across_splits"] else []
        return ", ".join(parts + ["labels differ"] * bool(row["across_labels"]))
    if name == "outliers":
        return f"{row['reason']}, {row['distance']:.1f}"
    return str(row.get("reason", ""))


def audit_browser(found: Sequence[View], pictures: Mapping[str, Thumbnail]) -> str:
    """The browser's controls, data and script.

    Args:
        found: Of `views`.
        pictures: By key; examples without one are listed by name alone.
    """
    keys = list(dict.fromkeys(key for view in found for key in view.keys if key in pictures))
    at = {key: place for place, key in enumerate(keys)}
    data = {
        "images": [pictures[key].data_uri for key in keys],
        "small": all(max(pictures[key].pixels.shape[:2]) <= SMALL_SIDE for key in keys),
        "views": {
            view.name: {
                "total": view.total,
                "rows": [
                    [row["key"], row["file"], row["split"], row["label_name"],
                     row["suggested_name"], row["note"], at.get(str(row["key"]), -1),
                     row["group"]]
                    for row in view.rows
                ],
            }
            for view in found
        },
    }  # fmt: skip
    classes = sorted({str(row[n]) for v in found for row in v.rows for n in _CLASS_COLUMNS})
    options = "".join(f"<option>{escape(name)}</option>" for name in classes)
    lists = "".join(
        f'<option value="{view.name}">{escape(NAMES[view.name])} ({count(view.total)})</option>'
        for view in found
    )
    script = (files("raygrad.report") / "assets" / "audit.js").read_text(encoding="utf-8")
    return (
        '<div class="audit"><form class="controls" autocomplete="off">'
        f'<label>list <select name="list">{lists}</select></label>'
        f'<label>labelled <select name="label"><option value="">any</option>{options}</select>'
        "</label>"
        f'<label>rather <select name="suggested"><option value="">any</option>{options}</select>'
        "</label>"
        '<label>split <select name="split"><option value="">any</option><option>train</option>'
        "<option>val</option><option>test</option></select></label>"
        '<label>name contains <input type="search" name="text"></label></form>'
        '<p class="note status" role="status"></p>'
        '<button type="button" class="copy" data-copies="key">copy the keys</button> '
        '<button type="button" class="copy" data-copies="file">copy the file names</button> '
        '<button type="button" class="copy" data-copies="labels">copy as CSV, with labels</button> '
        '<button type="button" class="copy clear" hidden>choose none</button>'
        f'<ul class="strip{" pixels" if data["small"] else ""}"></ul>'
        '<button type="button" class="more" hidden>show more</button>'
        f"{json_script(data)}</div><script>\n{script}</script>"
    )


_CLASS_COLUMNS = ("label_name", "suggested_name")
