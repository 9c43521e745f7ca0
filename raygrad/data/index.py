"""The index: one row an example, built by one parallel pass over the headers of the shards."""

import os
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.data import storage
from raygrad.data.manifest import digest
from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import key_hashes

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")
LABEL_EXTENSION = "cls"

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("key_hash", pa.uint64()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("label", pa.int64()),
        ("split", pa.string()),
    ]
)
SHARD_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("url", pa.string()),
        ("num_examples", pa.int64()),
        ("num_bytes", pa.int64()),
    ]
)
REJECT_SCHEMA = pa.schema([("shard", pa.string()), ("key", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Index:
    """Every example of a data set, its shards, and what could not be used."""

    examples: pa.Table
    """Columns of `INDEX_SCHEMA`; offset and size are the image's bytes within the shard."""
    shards: pa.Table
    """Columns of `SHARD_SCHEMA`; the url is absolute."""
    rejects: pa.Table
    """Columns of `REJECT_SCHEMA`."""

    @property
    def digest(self) -> str:
        """A hash of every example's key, place, label and split."""
        names = ["key", "shard", "offset", "size", "label", "split"]
        return digest([self.examples[name].to_pylist() for name in names])

    def counts(self, split: str) -> dict[str, int]:
        """Returns how many examples of a split each shard holds; shards with none are left out."""
        shards = self.examples.filter(pc.equal(self.examples["split"], split))["shard"]
        return {row["values"]: row["counts"] for row in shards.value_counts().to_pylist()}

    def rows(self, split: str, shard: str | None = None) -> pa.Table:
        """Returns the examples of a split, of all shards or of one."""
        chosen = pc.equal(self.examples["split"], split)
        if shard is not None:
            chosen = pc.and_(chosen, pc.equal(self.examples["shard"], shard))
        return self.examples.filter(chosen)

    def shard_url(self, name: str) -> str:
        """Returns where a shard is."""
        at = self.shards["name"].to_pylist().index(name)
        return self.shards["url"][at].as_py()


def build_index(
    train_urls: Sequence[str],
    test_urls: Sequence[str],
    *,
    val_fraction: float,
    split_seed: int = 0,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> Index:
    """Reads the headers and labels of every shard; no image is decoded.

    Validation is taken from the training examples by a hash of (split_seed, key), so that it does
    not depend on shards or order, and no tar is rewritten.

    Args:
        train_urls: Shards of training examples.
        test_urls: Shards of test examples.
        val_fraction: The share of training examples held out.
        split_seed: Changes which ones.
        map_fn: Like `map`; reads shards in parallel when given a parallel map.

    Raises:
        DataError: A shard is no tar, or a key occurs twice.
    """
    urls = [*train_urls, *test_urls]
    names = [_shard_name(url) for url in urls]
    if len(set(names)) < len(names):
        raise DataError("shards must have different file names, got one twice. Rename a shard.")
    splits = ["train"] * len(train_urls) + ["test"] * len(test_urls)
    examples, rejects, shards = [], [], []
    for name, url, split, (found, bad, num_bytes) in zip(
        names, urls, splits, map_fn(read_shard_headers, urls), strict=True
    ):
        examples += [{**row, "shard": name, "split": split} for row in found]
        rejects += [{**row, "shard": name} for row in bad]
        shards.append(
            {"name": name, "url": url, "num_examples": len(found), "num_bytes": num_bytes}
        )
    table = _with_split(examples, val_fraction, split_seed)
    return Index(
        table,
        pa.Table.from_pylist(shards, SHARD_SCHEMA),
        pa.Table.from_pylist(rejects, REJECT_SCHEMA),
    )


def read_shard_headers(url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Returns the examples of a shard, those without image or label, and its size in bytes.

    Raises:
        DataError: The file is no tar, or is cut.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    order: dict[str, None] = {}
    try:
        with storage.open_input(url) as stream, tarfile.open(fileobj=stream) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                order[key] = None
                if extension.lower() in IMAGE_EXTENSIONS:
                    images[key] = (member.offset_data, member.size)
                elif extension == LABEL_EXTENSION:
                    content = tar.extractfile(member)
                    labels[key] = content.read().decode().strip() if content else ""
            num_bytes = stream.size()
    except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"a shard must be a whole tar, got {error} in {url}.") from error
    found, bad = [], []
    for key in order:
        if key not in images:
            bad.append({"key": key, "reason": "no image"})
        elif not labels.get(key, "").isdecimal():
            bad.append({"key": key, "reason": f"label is no class: {labels.get(key)!r}"})
        else:
            offset, size = images[key]
            found.append({"key": key, "offset": offset, "size": size, "label": int(labels[key])})
    return found, bad, num_bytes


def write_index(data_url: str, index: Index) -> None:
    """Writes index.parquet, shards.parquet and rejects.parquet into a run's data folder.

    Shards inside the folder are stored by relative URL, so that a moved run still opens.
    """
    inside = data_url.rstrip("/") + "/"
    urls = [url.removeprefix(inside) for url in index.shards["url"].to_pylist()]
    shards = index.shards.set_column(1, "url", pa.array(urls, pa.string()))
    for name, table in (
        ("shards", shards),
        ("rejects", index.rejects),
        ("index", index.examples),
    ):
        write_table(storage.join(data_url, f"{name}.parquet"), table)


def read_index(data_url: str) -> Index:
    """Reads what `write_index` wrote.

    Raises:
        ConfigError: There is no index.
    """
    if not storage.exists(storage.join(data_url, "index.parquet")):
        raise ConfigError(f"an index must exist, got none in {data_url}. Do: raygrad prepare.")
    index, shards, rejects = (
        read_table(storage.join(data_url, f"{name}.parquet"))
        for name in ("index", "shards", "rejects")
    )
    urls = [
        url if storage.is_s3(url) or os.path.isabs(url) else storage.join(data_url, url)
        for url in shards["url"].to_pylist()
    ]
    return Index(index, shards.set_column(1, "url", pa.array(urls, pa.string())), rejects)


def write_table(url: str, table: pa.Table) -> None:
    """Writes a table as one Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_bytes(url, sink.getvalue().to_pybytes())


def read_table(url: str) -> pa.Table:
    """Reads one Parquet file."""
    with storage.open_input(url) as stream:
        return pq.read_table(stream)


def _with_split(examples: list[dict[str, Any]], val_fraction: float, seed: int) -> pa.Table:
    keys = [row["key"] for row in examples]
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(f"keys must be unique, got {twice!r} twice. Rename one of the examples.")
    hashes = key_hashes(keys)
    held_out = key_hashes([f"{seed}/{key}" for key in keys]) < int(val_fraction * 2.0**64)
    for row, key_hash, is_val in zip(examples, hashes.tolist(), held_out.tolist(), strict=True):
        row["key_hash"] = key_hash
        if is_val and row["split"] == "train":
            row["split"] = "val"
    return pa.Table.from_pylist(examples, INDEX_SCHEMA)


def _shard_name(url: str) -> str:
    return url.rsplit("/", 1)[-1].removesuffix(".tar")
