"""A split decoded once on a node, into one file that all its processes map without a copy."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.arrays import ImageArrays
from raygrad.data.decode import decode_image
from raygrad.data.index import Index
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.data.manifest import digest
from raygrad.data.reading import EncodedExample, ordered_map, read_rows
from raygrad.errors import DataError

_FORMAT = 1


def shared_arrays(index: Index, split: str, *, channels: int, folder: str) -> ImageArrays:
    """Returns a split decoded, its pixels mapped read-only from a file on this node.

    The first process that asks decodes, on all cores and straight into the file, so that memory
    never holds the images twice; others wait for it, and all map the same pages. The file is
    named by the index's digest, so that it is made again when the data set changes.

    Args:
        index: The data set.
        split: "train", "val" or "test".
        channels: 1 or 3.
        folder: Where such files are kept: a local folder, such as one in ``/dev/shm``.

    Returns:
        The images in the order of the index, rejects left out.

    Raises:
        DataError: Images differ in size, or a shard is not what was indexed.
    """
    name = digest([_FORMAT, index.digest, split, channels])
    Path(folder).mkdir(parents=True, exist_ok=True)
    target = Path(folder) / name
    with open(Path(folder) / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            scratch = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
            try:
                _decode_into(scratch, index, split, channels)
                os.rename(scratch, target)
            except BaseException:
                shutil.rmtree(scratch)
                raise
    return _open(target, index.rows(split))


def _decode_into(folder: Path, index: Index, split: str, channels: int) -> None:
    rows = index.rows(split)
    places = {key: at for at, key in enumerate(rows["key"].to_pylist())}
    used, rejects = [], []
    shape: tuple[int, ...] | None = None
    with open(folder / "images.raw", "wb", buffering=2**20) as stream:
        for example, pixels, reason in _decoded(index, rows, channels):
            if pixels is None:
                rejects.append({"shard": example.shard, "key": example.key, "reason": reason})
                continue
            image = pixels.transpose(2, 0, 1)
            if shape is not None and image.shape != shape:
                raise DataError(
                    f"images of a data set in memory must have one size, got {image.shape} and "
                    f"{shape}, in {example.shard}, {example.key!r}. Prepare them at one size."
                )
            shape = image.shape
            stream.write(np.ascontiguousarray(image).data)
            used.append(places[example.key])
    facts = {"shape": [len(used), *(shape or (channels, 0, 0))], "rejects": rejects}
    (folder / "facts.json").write_text(json.dumps(facts))
    np.save(folder / "used.npy", np.array(used, np.int64))


def _decoded(
    index: Index, rows: pa.Table, channels: int
) -> Iterator[tuple[EncodedExample, NDArray[np.uint8] | None, str]]:
    def decode(example: EncodedExample) -> tuple[EncodedExample, NDArray[np.uint8] | None, str]:
        try:
            return example, decode_image(example.image, channels=channels), ""
        except DataError as error:
            return example, None, str(error)

    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with ThreadPoolExecutor(num_threads) as pool:
        yield from ordered_map(pool, decode, read_rows(index, rows), 32 * num_threads)


def _open(folder: Path, rows: pa.Table) -> ImageArrays:
    facts = json.loads((folder / "facts.json").read_text())
    shape, used = tuple(facts["shape"]), np.load(folder / "used.npy")
    if 0 in shape:
        images = np.empty(shape, np.uint8)
    else:
        images = np.memmap(folder / "images.raw", np.uint8, mode="r", shape=shape)
    kept = rows.take(pa.array(used))
    rejects = pa.Table.from_pylist(facts["rejects"], REJECT_SCHEMA)
    return ImageArrays(images, kept["label"].to_numpy(), kept["key"].to_pylist(), rejects)
