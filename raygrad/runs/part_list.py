"""What the footers of a score table's parts say, in one file: a job reads it instead of them all.

It is checked against the folder: an entry holds for the file of that size and version, and for no
other. A part that is new, or was written again, is asked itself; a list that is not there costs
time and nothing else. Older tables have none.
"""

import itertools
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.data.index import write_table
from raygrad.storage import files

log = logging.getLogger("raygrad")

PARTS = "_parts.parquet"
_META = b"raygrad.provenance"
_SCHEMA = pa.schema(
    {
        "shard": pa.string(),
        "bytes": pa.int64(),
        "version": pa.string(),
        "time_s": pa.float64(),
        "num_used": pa.int64(),
        "rejects": pa.string(),
        "rows_digest": pa.string(),
        "not_finite": pa.string(),
        "device": pa.string(),
    }
)
_PIECE = 2**12
_AS_JSON = ("rejects", "not_finite")
_NO_REJECTS: list[dict[str, str]] = []
_ALL_FINITE: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What the footer of a part says."""

    time_s: float
    """How long its scoring took, on its actor."""
    num_used: int
    """Examples that have scores."""
    rejects: list[dict[str, str]]
    """Examples that could not be used."""
    rows_digest: str
    """A hash of the rows of the index that it is of; empty in parts that do not say."""
    not_finite: dict[str, int] = field(default_factory=dict)
    """How many scores of a column are NaN or infinite, for columns that have some."""
    device: str = ""
    """The name of the device that computed it; empty in parts that do not say."""

    def __post_init__(self) -> None:
        # Of very many parts: what most say alike is one object, which nobody changes.
        object.__setattr__(self, "rejects", self.rejects or _NO_REJECTS)
        object.__setattr__(self, "not_finite", self.not_finite or _ALL_FINITE)
        object.__setattr__(self, "device", sys.intern(self.device))


def shard_of(name: str) -> str | None:
    """Returns the shard whose part has this name, None where it is no part's."""
    is_part = name.startswith("part-") and name.endswith(".parquet")
    return name.removeprefix("part-").removesuffix(".parquet") if is_part else None


def write_part_list(
    url: str,
    provenance: Mapping[str, str],
    parts: Mapping[str, PartFacts],
    states: Mapping[str, tuple[int, str]] | None = None,
) -> None:
    """Writes the list of the parts that are there now.

    Args:
        url: The folder of the table.
        provenance: What the scores came from.
        parts: What each shard's part says.
        states: Size and version of the files that are there, by name, where the folder has been
            listed since the last of the parts was written.
    """
    rows = _rows(files.states_in(url, ".parquet") if states is None else states, parts)
    pieces = [_SCHEMA.empty_table()]
    while piece := list(itertools.islice(rows, _PIECE)):
        pieces.append(pa.Table.from_pylist(piece, _SCHEMA))
    table = pa.concat_tables(pieces).combine_chunks()
    said = json.dumps(dict(provenance), sort_keys=True)
    write_table(files.join(url, PARTS), table.replace_schema_metadata({_META: said}))


def _rows(
    states: Mapping[str, tuple[int, str]], parts: Mapping[str, PartFacts]
) -> Iterator[dict[str, object]]:
    """Yields a row of the list for each part that is there."""
    names = [one.name for one in fields(PartFacts)]
    for name, (size, version) in states.items():
        shard = shard_of(name)
        if shard is not None and shard in parts:
            said = {name: getattr(parts[shard], name) for name in names}
            row = {"shard": shard, "bytes": size, "version": version, **said}
            yield row | {name: json.dumps(row[name]) for name in _AS_JSON}


def listed_parts(
    url: str, provenance: Mapping[str, str], states: Mapping[str, tuple[int, str]]
) -> dict[str, PartFacts]:
    """Returns what the list says of the parts that are as it knew them.

    Args:
        url: The folder of the table.
        provenance: What they must have come from.
        states: Size and version of the files that are there, by name.
    """
    if PARTS not in states:
        return {}
    try:
        with files.open_input(files.join(url, PARTS)) as stream:
            table = pq.read_table(stream)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        log.warning("score: %s cannot be read and every part is: %s", PARTS, error)
        return {}
    said = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    if said != dict(provenance) or table.column_names != _SCHEMA.names:
        return {}
    found = {}
    # Few rows are Python objects at once.
    for row in (row for piece in table.to_batches(_PIECE) for row in piece.to_pylist()):
        shard, state = row.pop("shard"), (row.pop("bytes"), row.pop("version"))
        if states.get(f"part-{shard}.parquet") == state:
            found[shard] = PartFacts(**row | {name: json.loads(row[name]) for name in _AS_JSON})
    return found
