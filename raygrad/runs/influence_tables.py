"""Tables of what pulls an image's loss: what they came from, and whether that is still so."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.data.index import write_table
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import MANIFEST
from raygrad.storage import files
from raygrad.storage.manifest import read_json, read_marker

INFLUENCE = "influence"
"""Their folder in a run's."""

_META = b"raygrad.influence"
_INPUTS = ("data", "trained", "scored")


def write_influence(url: str, table: pa.Table, facts: dict[str, Any]) -> None:
    """Writes a table with what it came from, whole or not at all.

    Args:
        url: Its file.
        table: Its rows.
        facts: As of `inputs_now`, and what else is to be kept of it.
    """
    write_table(url, table.replace_schema_metadata({_META: json.dumps(facts)}))


def inputs_now(layout: RunLayout, network: str, is_own: bool) -> dict[str, Any]:
    """Returns the digests that influence in a run comes from now, None for what is not there.

    Args:
        layout: The run folder.
        network: The network that is scored.
        is_own: Whether it was trained elsewhere: then its checkpoints are those that scored.
    """
    manifest = files.join(layout.scores(network), MANIFEST)
    scored = is_own and files.exists(manifest)
    return {
        "network": network,
        "own": is_own,
        "data": (read_marker(layout.marker("prepare")) or {}).get("digest"),
        "trained": None
        if is_own
        else (read_marker(layout.marker(f"train-{network}")) or {}).get("digest"),
        "scored": read_json(manifest)["provenance"].get("checkpoint") if scored else None,
    }


def is_current(layout: RunLayout, url: str) -> bool:
    """Tells whether a table's data and network are those of the run; older tables do not say.

    Args:
        layout: The run folder.
        url: The table's file.

    Raises:
        ArrowInvalid: The file is no Parquet.
    """
    with files.open_input(url) as stream:
        said = (pq.read_schema(stream).metadata or {}).get(_META)
    if said is None:
        return True
    was = json.loads(said)
    now = inputs_now(layout, was["network"], was["own"])
    return all(None in (was[name], now[name]) or was[name] == now[name] for name in _INPUTS)
