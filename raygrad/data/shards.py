"""Writing WebDataset shards: deterministic tars, each whole or not there at all."""

import io
import itertools
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from raygrad.data import storage
from raygrad.data.manifest import write_json
from raygrad.data.sources import Example, Source

DATASET_FILE = "dataset.json"
_TAR_BLOCK = 512


@dataclass(frozen=True)
class WrittenShards:
    """Where a data set's shards are."""

    train_urls: tuple[str, ...]
    """Shards of training examples, validation included."""
    test_urls: tuple[str, ...]
    """Shards of test examples."""


def write_shards(
    source: Source,
    name: str,
    out: str,
    *,
    shard_bytes: int,
    seed: int,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> WrittenShards:
    """Writes a data set as tars of about `shard_bytes` each, and `dataset.json` beside them.

    Examples are shuffled over shards by a seeded permutation; the same source and seed give the
    same bytes.

    Args:
        source: The data set.
        name: Its name, kept in `dataset.json`.
        out: The folder of the shards, a URL.
        shard_bytes: About how large a tar becomes.
        seed: Changes the permutation.
        map_fn: Like `map`; writes shards in parallel when given a parallel map.
    """
    urls: dict[str, tuple[str, ...]] = {}
    for split, examples in (("train", source.train), ("test", source.test)):
        order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
        groups = _cut([examples[at] for at in order], shard_bytes)
        tasks = [
            (storage.join(out, f"{split}-{number:06d}.tar"), group)
            for number, group in enumerate(groups)
        ]
        urls[split] = tuple(map_fn(_write_shard, tasks))
    facts = {
        "source": name,
        "classes": list(source.classes),
        "num_classes": len(source.classes),
        "channels": source.channels,
        "counts": {"train": len(source.train), "test": len(source.test)},
    }
    write_json(storage.join(out, DATASET_FILE), facts)
    return WrittenShards(urls["train"], urls["test"])


def tar_bytes(examples: Iterable[Example]) -> bytes:
    """Returns a tar of the examples: `<key>.<extension>` and `<key>.cls`, no times, no owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for example in examples:
            for extension, data in (
                (example.extension, example.image),
                ("cls", str(example.label).encode()),
            ):
                member = tarfile.TarInfo(f"{example.key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _write_shard(task: tuple[str, list[Example]]) -> str:
    url, examples = task
    storage.write_bytes(url, tar_bytes(examples))
    return url


def _cut(examples: list[Example], shard_bytes: int) -> list[list[Example]]:
    """Cuts examples, in order, into groups of about `shard_bytes` of tar each, even in number."""
    total = sum(_tar_size(example) for example in examples)
    num_shards = max(1, min(len(examples), round(total / shard_bytes)))
    bounds = np.linspace(0, len(examples), num_shards + 1).round().astype(int)
    return [examples[a:b] for a, b in itertools.pairwise(bounds.tolist())]


def _tar_size(example: Example) -> int:
    padded = -(-len(example.image) // _TAR_BLOCK) * _TAR_BLOCK
    return padded + 3 * _TAR_BLOCK
