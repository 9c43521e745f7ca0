"""Writing WebDataset shards: deterministic tars, each whole or not there at all."""

import itertools
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from raygrad.data.example_sets import Example, ExampleSet, FileExamples
from raygrad.data.shard_scan import scan_shard
from raygrad.data.sources import Source
from raygrad.errors import ConfigError
from raygrad.progress import Progress
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, write_json

DATASET_FILE = "dataset.json"
PLAN_FILE = "_plan.json"
FORMAT = 1
"""Changes when the same source and seed give other bytes than before."""
_BLOCK = tarfile.BLOCKSIZE
_HEADERS = 3 * _BLOCK  # of the image, of the label, and the label


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
    same bytes. A tar that is there whole is kept, so that a stopped call goes on when repeated.

    Args:
        source: The data set; its images are read one by one, never held together.
        name: Its name, kept in `dataset.json`.
        out: The folder of the shards, a URL.
        shard_bytes: About how large a tar becomes.
        seed: Changes the permutation.
        map_fn: Like `map`; writes shards in parallel when given a parallel map.

    Raises:
        ConfigError: The folder holds shards of another data set, seed or size.
    """
    splits = {"train": source.train, "test": source.test}
    bind_source(source, name, out, shard_bytes=shard_bytes, seed=seed)
    urls = {
        split: write_split(split, examples, out, shard_bytes=shard_bytes, seed=seed, map_fn=map_fn)
        for split, examples in splits.items()
    }
    facts = {
        "source": name,
        "classes": list(source.classes),
        "num_classes": len(source.classes),
        "channels": source.channels,
        "counts": {"train": len(source.train), "test": len(source.test)},
    }
    write_json(files.join(out, DATASET_FILE), facts)
    return WrittenShards(urls["train"], urls["test"])


def bind_source(source: Source, name: str, out: str, *, shard_bytes: int, seed: int) -> None:
    """Writes down which data set a folder of shards is of, or checks that it is of this one.

    Raises:
        ConfigError: It is of another, or this one has changed.
    """
    prints = [examples.fingerprint() for examples in (source.train, source.test)]
    bind_folder(out, [FORMAT, name, shard_bytes, seed, list(source.classes), prints])


def bind_folder(out: str, plan: Any) -> None:
    """Writes down what a folder of shards is for, or checks that it is for the same.

    Raises:
        ConfigError: It is for something else.
    """
    url, value = files.join(out, PLAN_FILE), {"digest": digest(plan)}
    if not files.exists(url):
        write_json(url, value)
    elif read_json(url) != value:
        raise ConfigError(
            f"a folder of shards must hold one data set, written with one seed and size, "
            f"got another, or one that has changed, for {out}. Name another folder or --run, or "
            "remove that one."
        )


def write_split(
    split: str,
    examples: ExampleSet,
    out: str,
    *,
    shard_bytes: int,
    seed: int,
    map_fn: Callable[..., Iterable[Any]] = map,
) -> tuple[str, ...]:
    """Writes examples, shuffled, as ``<split>-<number>.tar``; whole tars there are kept.

    Returns:
        The URLs of the tars, none where there is no example.
    """
    if len(examples) == 0:
        return ()
    groups = _groups(examples, shard_bytes, seed)
    urls = tuple(files.join(out, f"{split}-{at:06d}.tar") for at in range(len(groups)))
    tasks = ((url, examples.take(at)) for url, at in zip(urls, groups, strict=True))
    progress = Progress(f"write {split}", len(examples), "examples")
    for count in map_fn(_write_shard, tasks):
        progress.add(count)
    return urls


def write_tar(stream: IO[bytes], examples: Iterable[Example]) -> int:
    """Writes a tar of ``<key>.<extension>`` and ``<key>.cls``, no times, no owners.

    Returns:
        The number of examples.
    """
    count = length = 0
    for example in examples:
        label = str(example.label).encode()
        members = ((example.extension, example.image), ("cls", label), *example.extra)
        for extension, data in members:
            head = _header(f"{example.key}.{extension}", len(data))
            padding = bytes(-len(data) % _BLOCK)
            stream.write(b"".join((head, data, padding)))
            length += len(head) + len(data) + len(padding)
        count += 1
    closing = 2 * _BLOCK
    stream.write(bytes(closing + -(length + closing) % tarfile.RECORDSIZE))
    return count


def _write_shard(task: tuple[str, ExampleSet]) -> int:
    url, examples = task
    if not _is_whole(url, examples):
        with files.open_output(url) as stream:
            write_tar(stream, examples)
    return len(examples)


def _is_whole(url: str, examples: ExampleSet) -> bool:
    """Tells whether a tar of exactly these examples is there; only its headers are read.

    Of examples that are files their sizes count too, and that none is newer than the tar, where
    that is on a disk: images that were corrected in place are written again.
    """
    if not files.exists(url):
        return False
    found = scan_shard(url)
    if found.damage or found.examples["key"].to_pylist() != list(examples.keys()):
        return False
    if not isinstance(examples, FileExamples):
        return True
    if found.examples["size"].to_pylist() != examples.sizes.tolist():
        return False
    return not files.is_local(url) or examples.newest_ns() <= os.stat(url).st_mtime_ns


def _groups(examples: ExampleSet, shard_bytes: int, seed: int) -> list[NDArray[np.int64]]:
    """Cuts a permutation into groups of about `shard_bytes` of tar each, even in number."""
    total = examples.image_bytes() + len(examples) * (_HEADERS + _BLOCK // 2)
    num_shards = max(1, min(len(examples), round(total / shard_bytes)))
    if getattr(examples, "in_order", False):  # a set need not say
        order = np.arange(len(examples))
    else:
        order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
    bounds = np.linspace(0, len(examples), num_shards + 1).round().astype(int)
    return [order[a:b] for a, b in itertools.pairwise(bounds.tolist())]


def _header(name: str, size: int) -> bytes:
    """Returns a member's header: ustar, or pax where the name is too long for it."""
    encoded = name.encode()
    if len(encoded) > tarfile.LENGTH_NAME or not name.isascii() or size >= 8**11:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.PAX_FORMAT)
    digits = b"%011o" % size
    checksum = _TEMPLATE_SUM + sum(encoded) + sum(digits)
    return b"".join(
        (
            encoded.ljust(tarfile.LENGTH_NAME, b"\0"),
            _TEMPLATE[100:124],
            digits,
            _TEMPLATE[135:148],
            b"%06o\0 " % checksum,
            _TEMPLATE[156:],
        )
    )


def _template() -> Iterator[bytes]:
    yield bytes(tarfile.LENGTH_NAME)
    yield b"0000644\0" + b"0000000\0" * 2  # mode, owner, group
    yield bytes(11) + b"\0" + b"00000000000\0"  # size, time
    yield b" " * 8  # the checksum counts itself as spaces
    yield b"0" + bytes(100) + b"ustar\x0000" + bytes(64)  # a regular file of nobody
    yield b"0000000\0" * 2 + bytes(167)  # no device, no prefix


_TEMPLATE = b"".join(_template())
_TEMPLATE_SUM = sum(_TEMPLATE)
assert len(_TEMPLATE) == _BLOCK
