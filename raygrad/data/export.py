"""A subset as new WebDataset shards, to train on elsewhere."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raygrad.data import storage
from raygrad.data.example_sets import Example
from raygrad.data.index import Index
from raygrad.data.manifest import digest, write_json
from raygrad.data.range_reads import read_rows
from raygrad.data.shards import FORMAT, bind_folder, write_split
from raygrad.errors import ConfigError

SUBSET_FILE = "subset.json"
_PNG_BEGIN = b"\x89PNG"


@dataclass(frozen=True)
class IndexedExamples:
    """Examples that are in shards already; read by range when they are asked for."""

    index: Index
    """Whose examples are these and no others, by shard and offset."""
    weights: dict[str, float]
    """Inclusion weights by key; a key without one has none."""

    def __len__(self) -> int:
        return self.index.examples.num_rows

    def __iter__(self) -> Iterator[Example]:
        for row, image in read_rows(self.index, self.index.examples):
            extension = "png" if image.startswith(_PNG_BEGIN) else "jpg"
            weight = self.weights.get(row["key"])
            values = json.dumps({"label": row["label"], "weight": weight}).encode()
            extra = () if weight is None else (("json", values),)
            yield Example(row["key"], image, extension, row["label"], extra)

    def keys(self) -> list[str]:
        """Returns the keys in the order of reading."""
        return self.index.examples["key"].to_pylist()

    def image_bytes(self) -> int:
        """Returns the size of all images."""
        return pc.sum(self.index.examples["size"]).as_py() or 0

    def fingerprint(self) -> str:
        """Returns a hash of the examples' keys, places and labels, and of the weights."""
        return digest([self.index.digest, self.weights])

    def take(self, positions: NDArray[np.int64]) -> "IndexedExamples":
        """Returns the examples at `positions`, by shard and offset."""
        rows = self.index.examples.take(pa.array(np.sort(positions)))
        keys = rows["key"].to_pylist()
        weights = {key: self.weights[key] for key in keys if key in self.weights}
        return IndexedExamples(Index(rows, self.index.shards, self.index.rejects), weights)


def export_subset(
    index: Index,
    subset: pa.Table,
    out: str,
    *,
    shard_bytes: int,
    origin: dict[str, Any] | None = None,
    seed: int = 0,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> tuple[str, ...]:
    """Writes a subset as tars ``train-<number>.tar``, and `subset.json` beside them.

    Images are copied byte for byte and read by range. Examples of a weighted draw get a member
    ``<key>.json`` with label and weight. A tar that is there whole is kept, so that a stopped
    export goes on when repeated.

    Args:
        index: The data set.
        subset: Columns key and, for weighted draws, weight; see `raygrad.data.subsets`.
        out: The folder of the new shards, a URL.
        shard_bytes: About how large a tar becomes.
        origin: What the subset came from; kept in `subset.json`.
        seed: Changes which examples share a tar.
        map_fn: Like `map`; writes shards in parallel when given a parallel map.

    Returns:
        The URLs of the tars.

    Raises:
        ConfigError: The subset is empty or holds a key that the index does not, or the folder
            holds another one.
    """
    keys = subset["key"].to_pylist()
    rows = index.examples.filter(pc.is_in(index.examples["key"], pa.array(keys, pa.string())))
    if not keys or rows.num_rows != len(keys):
        raise ConfigError(
            f"a subset must hold keys of the index, each once, got {len(keys)} keys of which "
            f"{rows.num_rows} are there. Export with the index that it was drawn from."
        )
    rows = rows.sort_by([("shard", "ascending"), ("offset", "ascending")])
    weights = _weights(subset)
    examples = IndexedExamples(Index(rows, index.shards, index.rejects.slice(0, 0)), weights)
    bind_folder(out, [FORMAT, "subset", shard_bytes, seed, examples.fingerprint()])
    urls = write_split("train", examples, out, shard_bytes=shard_bytes, seed=seed, map_fn=map_fn)
    facts = {
        "num_examples": len(examples),
        "num_shards": len(urls),
        "classes": list(index.classes),
        "weighted": bool(weights),
        "origin": origin or {},
    }
    write_json(storage.join(out, SUBSET_FILE), facts)
    return urls


def _weights(subset: pa.Table) -> dict[str, float]:
    """Returns the weights of a weighted draw; none where all are alike, which weighs nothing."""
    if "weight" not in subset.column_names:
        return {}
    values = subset["weight"].to_pylist()
    if len(set(values)) <= 1:
        return {}
    return dict(zip(subset["key"].to_pylist(), values, strict=True))
