"""What a run folder holds, as tables, figures and images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from raygrad.data.decode import decode_image
from raygrad.data.index import read_index, read_table
from raygrad.data.reading import read_rows
from raygrad.errors import ConfigError
from raygrad.pipeline.stages import facts_of, facts_of_data
from raygrad.runs.audit_tables import read_audit
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import read_score_table
from raygrad.runs.subsets import read_subset
from raygrad.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AuditTables:
    """What an audit found; see raygrad/runs/audit_tables.py for what stands in each table."""

    labels: pa.Table
    """Every example with a suggested label, the likeliest wrong first."""
    repeats: pa.Table
    """Members of groups of copies, those across splits or labels first."""
    outliers: pa.Table
    """Every example, odd pictures and the farthest from all classes first."""
    keep: pa.Table
    """What of the training split stays: a subset, as `sweep` takes its file."""
    drop: pa.Table
    """What goes, and why."""
    check: pa.Table | None
    """What training on each set came to, where it was asked for."""
    summary: dict[str, Any]
    """Counts, estimates with their intervals, and how it was judged."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{escape(_shown(self.summary[name]))}"
            "</td></tr>"
            for name in ("num_examples", "num_suspects", "num_wrong", "num_repeated", "num_odd",
                         "num_kept", "num_dropped", "accuracy", "how")
        )  # fmt: skip
        return f"<table>{rows}</table>"


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def audit_tables(folder: str) -> AuditTables:
    """Returns the tables of a run's audit.

    Args:
        folder: The run folder.

    Raises:
        ConfigError: There is no complete audit.
    """
    layout = RunLayout(folder)
    facts_of(layout, "audit")
    tables, summary = read_audit(layout.audit)
    if not tables:
        raise ConfigError(
            f"an audit must be whole, got none in {layout.audit}. Do it again: raygrad audit."
        )
    named = {name: tables[name].replace_schema_metadata(None) for name in tables}
    return AuditTables(check=named.pop("check", None), summary=summary, **named)


def index_table(folder: str) -> pa.Table:
    """Returns a row an example of a prepared run.

    Args:
        folder: The run folder.

    Raises:
        ConfigError: Its data are not prepared.
    """
    layout = RunLayout(folder)
    facts_of(layout, "prepare")
    return read_index(layout.data).examples.replace_schema_metadata(None)


def scores(folder: str, network: str) -> pa.Table:
    """Returns a complete score table.

    Args:
        folder: The run folder.
        network: The network that scored.

    Raises:
        ConfigError: It is not complete.
    """
    return read_score_table(RunLayout(folder).scores(network))


def subsets(urls: Sequence[str], layout: RunLayout) -> dict[str, pa.Table]:
    """Returns subsets by their files' names below subsets/, without the ending.

    Args:
        urls: Their files.
        layout: The run folder.
    """
    place = files.join(layout.url, "subsets") + "/"
    return {url.removeprefix(place).removesuffix(".parquet"): read_subset(url)[0] for url in urls}


def results(folder: str) -> pa.Table:
    """Returns the table of retrainings.

    Args:
        folder: The run folder.

    Raises:
        ConfigError: There is no sweep.
    """
    url = RunLayout(folder).results
    if not files.exists(url):
        raise ConfigError(f"results must be there, got none at {url}. Do: raygrad sweep.")
    return read_table(url).replace_schema_metadata(None)


def images(folder: str, keys: Sequence[str]) -> dict[str, Image.Image]:
    """Returns images by key.

    Args:
        folder: The run folder.
        keys: Of the examples.

    Raises:
        ConfigError: One is of no example.
        DataError: One cannot be decoded.
    """
    layout = RunLayout(folder)
    facts_of(layout, "prepare")
    index, channels = read_index(layout.data), int(facts_of_data(layout)["channels"])
    wanted = pa.array(list(dict.fromkeys(keys)), pa.string())
    rows = index.examples.filter(pc.is_in(index.examples["key"], value_set=wanted))
    unknown = sorted(set(keys) - set(rows["key"].to_pylist()))
    if unknown:
        raise ConfigError(
            f"a key must be of an example, got {json.dumps(unknown[0])}. Take it from a table."
        )
    found = {}
    for example in read_rows(index, rows):
        pixels = decode_image(example.image, channels=channels)
        found[example.key] = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return {key: found[key] for key in keys}


def figures(folder: str) -> "dict[str, Figure]":
    """Returns the report's figures by name.

    Args:
        folder: The run folder.
    """
    from raygrad.report.chapter import run_chapter, run_panels
    from raygrad.report.style import WIDE, drawing
    from raygrad.report.tables import read_run

    run = read_run(folder)
    chapter = run_chapter(run, run_panels(run))
    with drawing():
        return {figure.name: figure.draw(WIDE) for figure in chapter.figures()}
