"""The score table: one Parquet part a shard, and a manifest that says what all came from."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.data import storage
from raygrad.data.index import write_table
from raygrad.data.manifest import read_json, write_json
from raygrad.errors import ConfigError

MANIFEST = "_manifest.json"
_META = b"raygrad.provenance"


def part_url(url: str, shard: str) -> str:
    """Returns where the part of a shard is."""
    return storage.join(url, f"part-{shard}.parquet")


def write_part(url: str, shard: str, table: pa.Table, provenance: dict[str, str]) -> None:
    """Commits the scores of a shard: the part is there whole, or not at all.

    Args:
        url: The folder of the table.
        shard: The shard's name.
        table: Columns key, shard, label and one a score.
        provenance: What the scores came from; kept in the part.
    """
    metadata = {_META: json.dumps(provenance, sort_keys=True)}
    write_table(part_url(url, shard), table.replace_schema_metadata(metadata))


def finished_shards(url: str, provenance: dict[str, str]) -> set[str]:
    """Returns the shards that have their part already.

    Raises:
        ConfigError: A part came from something else.
    """
    done = set()
    for part in storage.list_files(url, ".parquet"):
        name = part.rsplit("/", 1)[-1]
        if name.startswith("part-"):
            _check_provenance(part, provenance)
            done.add(name.removeprefix("part-").removesuffix(".parquet"))
    return done


def write_manifest(url: str, shards: Sequence[str], provenance: dict[str, str]) -> None:
    """Marks the table complete."""
    manifest = {"shards": sorted(shards), "provenance": provenance}
    write_json(storage.join(url, MANIFEST), manifest)


def table_parts(url: str) -> list[str]:
    """Returns the URLs of a complete table's parts, in the order of their shards' names.

    Raises:
        ConfigError: The table is not complete, or mixes provenances.
    """
    manifest_url = storage.join(url, MANIFEST)
    if not storage.exists(manifest_url):
        raise ConfigError(f"a score table must be complete, got {url}. Do: raygrad score.")
    manifest = read_json(manifest_url)
    parts = [part_url(url, shard) for shard in manifest["shards"]]
    for part in parts:
        _check_provenance(part, manifest["provenance"])
    return parts


def read_score_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the whole table, parts in the order of their shards' names.

    Args:
        url: The folder of the table.
        columns: The columns wanted; by default all.

    Raises:
        ConfigError: The table is not complete, lacks a column, or mixes provenances.
    """
    parts = []
    for part in table_parts(url):
        with storage.open_input(part) as stream:
            file = pq.ParquetFile(stream)
            missing = set(columns or ()) - set(file.schema_arrow.names)
            if missing:
                raise ConfigError(
                    f"score columns must be in the table, got {sorted(missing)}, "
                    f"not of {file.schema_arrow.names}. Score with --columns."
                )
            parts.append(file.read(columns=list(columns) if columns else None))
    return pa.concat_tables(parts).replace_schema_metadata(None)


def _check_provenance(part: str, provenance: dict[str, str]) -> None:
    with storage.open_input(part) as stream:
        metadata = pq.read_schema(stream).metadata or {}
    found = json.loads(metadata.get(_META, b"{}"))
    differ = [k for k in provenance if found.get(k) != provenance[k]]
    if differ:
        raise ConfigError(
            f"all parts of a score table must have one provenance, got another "
            f"{', '.join(differ)} in {part}. Name another --run, or remove the part."
        )
