"""The score table: one Parquet part a shard, and a manifest that says what all came from.

A part is the completion marker of its shard. It holds the scores, and in its footer what they
came from, which rows of the index they are of, and the examples that could not be used: all that
must be true together is committed in one file.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raygrad.data.index import write_table
from raygrad.errors import ConfigError, DataError
from raygrad.runs.gathered_rows import ROWS, gather_rows, gathered_rows
from raygrad.runs.part_list import PartFacts, listed_parts, shard_of
from raygrad.storage import files
from raygrad.storage.damage import whole_parquet
from raygrad.storage.manifest import read_json, write_json

MANIFEST = "_manifest.json"
PROVENANCE = "_provenance.json"
_META = b"raygrad.provenance"
_TIME = b"raygrad.time_s"
_ROWS = b"raygrad.rows"
_REJECTS = b"raygrad.rejects"
_NOT_FINITE = b"raygrad.not_finite"
_COMPUTED = b"raygrad.computed_by"
_IN_FLIGHT = 16
VECTORS = ("features", "errors")
"""The columns of the side table `features/`: what enters the last linear layer, and the gradient of
the loss at the logits (softmax minus one-hot, for cross-entropy). Their outer product is the
gradient of the last layer's weights. There are no errors where that layer does not make the logits;
of several checkpoints both are the first one's."""
_LATER = ("code",)
"""What older tables do not say of themselves, and is not held against them."""


def part_url(url: str, shard: str) -> str:
    """Returns where the part of a shard is."""
    return files.join(url, part_name(shard))


def part_name(shard: str) -> str:
    """Returns the name of the part of a shard within its table's folder."""
    return f"part-{shard}.parquet"


def features_url(url: str, shard: str) -> str:
    """Returns where the penultimate features of a shard are."""
    return files.join(url, "features", part_name(shard))


def write_vectors(
    url: str, shard: str, keys: Sequence[str], vectors: Mapping[str, NDArray[Any]]
) -> None:
    """Writes the side table of a shard: what the last layer reads and how far its output was off.

    Args:
        url: The folder of the table.
        shard: The shard's name.
        keys: The examples' keys, N of them.
        vectors: Of `VECTORS`: features, float16 `[N, D]`, which take 2 D bytes an example; errors,
            float32 `[N, C]`, which take 4 C bytes.
    """
    columns: dict[str, pa.Array] = {"key": pa.array(keys, pa.string())}
    for name, rows in vectors.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    write_table(features_url(url, shard), pa.table(columns))


def write_part(
    url: str,
    shard: str,
    table: pa.Table,
    provenance: dict[str, str],
    time_s: float = 0.0,
    *,
    rejects: Sequence[Mapping[str, str]] = (),
    rows_digest: str = "",
    computed_by: Mapping[str, str] | None = None,
) -> None:
    """Commits the scores of a shard: the part is there whole, or not at all.

    Args:
        url: The folder of the table.
        shard: The shard's name.
        table: Columns key, shard, label and one a score.
        provenance: What the scores came from; kept in the part.
        time_s: How long the scoring took; kept in the part.
        rejects: Examples that could not be used: shard, key, reason; kept in the part.
        rows_digest: A hash of the index's rows that it is of; kept in the part.
        computed_by: Numerics, the device's name and torch's version; kept in the part. Parts of
            one table may be of different devices.
    """
    not_finite = count_not_finite(table)
    metadata = {
        _META: json.dumps(provenance, sort_keys=True),
        _TIME: str(time_s),
        _ROWS: rows_digest,
        _REJECTS: json.dumps(list(rejects)),
        _NOT_FINITE: json.dumps(not_finite),
        _COMPUTED: json.dumps(dict(computed_by or {}), sort_keys=True),
    }
    write_table(part_url(url, shard), table.replace_schema_metadata(metadata))


def count_not_finite(table: pa.Table) -> dict[str, int]:
    """Returns how many scores are NaN or infinite, for each column that has some."""
    counts = {
        name: table.num_rows - (pc.sum(pc.is_finite(table[name])).as_py() or 0)
        for name in table.column_names
        if pa.types.is_floating(table.schema.field(name).type)
    }
    return {name: count for name, count in counts.items() if count}


def bind_table(url: str, provenance: dict[str, str]) -> None:
    """Claims a folder for scores of one provenance, the first of several jobs that come at once.

    Raises:
        ConfigError: The folder is of another provenance.
    """
    claim = files.join(url, PROVENANCE)
    files.write_bytes(claim, json.dumps(provenance, indent=1).encode(), if_absent=True)
    _compare(read_json(claim), provenance, claim)


def release_unused(url: str) -> None:
    """Lets go of a folder without any part: what was refused binds nothing."""
    if not files.list_files(url, ".parquet"):
        files.remove(files.join(url, PROVENANCE))


def files_of(url: str) -> dict[str, tuple[int, str]]:
    """Returns size and version, as of `files.states`, of a table's parts and lists, by name."""
    return files.states_in(url, ".parquet")


def finished_parts(
    url: str, provenance: dict[str, str], states: Mapping[str, tuple[int, str]] | None = None
) -> dict[str, PartFacts]:
    """Returns the shards that have their part already, with what its footer says.

    Args:
        url: The folder of the table.
        provenance: What they must have come from.
        states: Its `files_of`, where they were just listed.

    Raises:
        ConfigError: A part came from something else.
    """
    states = files_of(url) if states is None else states
    shards = [shard for name in states if (shard := shard_of(name)) is not None]
    return _facts_of(url, shards, provenance, states)


def _facts_of(
    url: str,
    shards: Sequence[str],
    provenance: dict[str, str],
    states: Mapping[str, tuple[int, str]],
) -> dict[str, PartFacts]:
    """Returns what parts say: as they are listed, or from the footers of those that are not."""
    listed = listed_parts(url, provenance, states)
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        asked = [shard for shard in shards if shard not in listed]
        facts = pool.map(lambda shard: _facts(part_url(url, shard), provenance), asked)
        found = dict(zip(asked, facts, strict=True))
    return {shard: listed.get(shard) or found[shard] for shard in shards}


def part_facts(url: str, shard: str, provenance: dict[str, str]) -> PartFacts | None:
    """Returns what the footer of a shard's part says, None where the shard has no part.

    Raises:
        ConfigError: The part came from something else.
    """
    # To ask beforehand would be two requests a shard more on S3, where nearly none has its part.
    with contextlib.suppress(FileNotFoundError):
        return _facts(part_url(url, shard), provenance)
    return None


def write_manifest(
    url: str,
    shards: Sequence[str],
    provenance: dict[str, str],
    score_time_s: float,
    **facts: Any,
) -> None:
    """Marks the table complete; `score_time_s` is how long its parts took to make."""
    manifest = {
        "shards": sorted(shards),
        "provenance": provenance,
        "score_time_s": score_time_s,
        **facts,
    }
    write_json(files.join(url, MANIFEST), manifest)


def table_parts(url: str) -> list[str]:
    """Returns the URLs of a complete table's parts, in the order of their shards' names.

    Raises:
        ConfigError: The table is not complete, or mixes provenances.
    """
    manifest = _manifest(url)
    _facts_of(url, manifest["shards"], manifest["provenance"], files_of(url))
    return [part_url(url, shard) for shard in manifest["shards"]]


def _manifest(url: str) -> dict[str, Any]:
    manifest_url = files.join(url, MANIFEST)
    if not files.exists(manifest_url):
        raise ConfigError(f"a score table must be complete, got {url}. Do: raygrad score.")
    return dict(read_json(manifest_url))


def row_files(url: str) -> list[str]:
    """Returns the URLs of the files that hold a complete table's rows, in order, and no others.

    They are its parts, or where those are many the one file that they were gathered in.

    Raises:
        ConfigError: The table is not complete, or mixes provenances.
    """
    if files.exists(files.join(url, ROWS)) and files.exists(files.join(url, MANIFEST)):
        shards = read_json(files.join(url, MANIFEST))["shards"]
        names = [part_name(shard) for shard in shards]
        # It was written of parts of one provenance; of these, by their sizes and versions.
        found = gathered_rows(url, names, files_of(url))
        if found is not None:
            return [found]
    return table_parts(url)


def gather(
    url: str,
    states: Mapping[str, tuple[int, str]] | None = None,
    facts: Mapping[str, PartFacts] | None = None,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> None:
    """Gathers the rows of a complete table of very many parts, for those that read it all.

    Args:
        url: The folder of the table.
        states: Its `files_of`, where they were listed since its parts were all there.
        facts: What its parts say, where they are known to be of one provenance; by default they
            are asked.
        map_fn: Like `map`; reads parts in parallel when it is a parallel map.

    Raises:
        ConfigError: The table is not complete, or mixes provenances.
    """
    manifest = _manifest(url)
    shards, states = manifest["shards"], files_of(url) if states is None else states
    if facts is None:
        facts = _facts_of(url, shards, manifest["provenance"], states)
    num_rows = [facts[shard].num_used for shard in shards]
    names = [part_name(shard) for shard in shards]
    gather_rows(url, names, states, num_rows, map_fn)


def lacking_files(url: str) -> list[str]:
    """Returns the URLs of what is not there any more of a table that was complete."""
    manifest_url = files.join(url, MANIFEST)
    if not files.exists(manifest_url):
        return [manifest_url]
    there = set(files.list_files(url, ".parquet"))
    parts = (part_url(url, shard) for shard in read_json(manifest_url)["shards"])
    return [part for part in parts if part not in there]


def read_score_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the whole table, parts in the order of their shards' names.

    Args:
        url: The folder of the table.
        columns: The columns wanted; by default all.

    Raises:
        ConfigError: The table is not complete, lacks a column, or mixes provenances.
    """
    return pa.concat_tables(_read_parts(url, columns)).replace_schema_metadata(None)


def _read_parts(url: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    for part in row_files(url):
        with whole_parquet(part), files.open_input(part) as stream:
            file = pq.ParquetFile(stream)
            missing = set(columns or ()) - set(file.schema_arrow.names)
            if missing:
                raise ConfigError(
                    f"score columns must be in the table, got {sorted(missing)}, "
                    f"not of {file.schema_arrow.names}. Score with --columns."
                )
            table = file.read(columns=list(columns) if columns else None)
        yield table.replace_schema_metadata(None)


def _facts(part: str, provenance: dict[str, str]) -> PartFacts:
    with files.open_input(part) as stream:
        try:
            file = pq.read_metadata(stream)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"a part must be a whole Parquet file, got {error}, in {part}. "
                "Remove it and score again."
            ) from error
    metadata = file.metadata or {}
    _compare(json.loads(metadata.get(_META, b"{}")), provenance, part)
    return PartFacts(
        float(metadata.get(_TIME, b"0")),
        file.num_rows,
        json.loads(metadata.get(_REJECTS, b"[]")),
        metadata.get(_ROWS, b"").decode(),
        json.loads(metadata.get(_NOT_FINITE, b"{}")),
        json.loads(metadata.get(_COMPUTED, b"{}")).get("device", ""),
    )


def _compare(found: Mapping[str, str], provenance: Mapping[str, str], where: str) -> None:
    keys = {*found, *provenance} - {key for key in _LATER if key not in found}
    differ = sorted(k for k in keys if found.get(k) != provenance.get(k))
    if differ:
        raise ConfigError(
            f"all parts of a score table must have one provenance, got another "
            f"{', '.join(differ)} in {where}. Do the stage again (--redo), or name another --run."
        )
