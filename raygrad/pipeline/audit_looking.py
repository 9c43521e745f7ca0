"""One look at every image: what it is known by and, with a checkpoint, what a network sees in it.

What is found of every few hundred images is a Parquet part, so that an interrupted look goes on.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from raygrad.audit.pictures import FREQUENCIES, SIDE, PictureFacts, picture_facts
from raygrad.data.decode import decode_image
from raygrad.data.index import Index, read_table, write_table
from raygrad.data.reading import EncodedExample, ordered_map, read_rows
from raygrad.engine.score.task import Preprocess
from raygrad.errors import DataError
from raygrad.progress import Progress
from raygrad.scoring.numerics import numerics
from raygrad.storage import files
from raygrad.training.fold_training import device_here, outputs
from raygrad.training.outside import NetworkSource

_CHUNK = 256
_PART = 256
"""Images of a part: what an interruption loses at most."""

_REJECTS = b"raygrad.rejects"

LOOK = 2
"""Which facts a part holds, and how they are made: parts of another number are not read."""


@dataclass(frozen=True)
class Network:
    """The network whose features are wanted, and how it is shown images."""

    source: NetworkSource
    preprocess: Preprocess
    device: str = "auto"


@dataclass(frozen=True)
class Seen:
    """What was found of all examples that can be decoded, in the order of the shards."""

    rows: pa.Table
    """key, key_hash, shard, label, split; digest; width, height, brightness, contrast,
    one_colour."""
    descriptors: NDArray[np.float32]
    """``[N, D]``, of `picture_facts`."""
    features: NDArray[np.float32] | None
    """``[N, F]``; None without a network."""
    pictures: NDArray[np.uint8]
    """As small squares of greys, ``[N, SIDE, SIDE]``, of `picture_facts`."""
    rejects: list[dict[str, str]]
    """Shard, key and reason of the examples that cannot be decoded."""


_FACTS = pa.schema(
    [
        ("key", pa.string()),
        ("key_hash", pa.uint64()),
        ("shard", pa.string()),
        ("label", pa.int64()),
        ("split", pa.string()),
        ("digest", pa.binary(16)),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("one_colour", pa.float64()),
    ]
)


def look(index: Index, channels: int, network: Network | None, folder: str) -> Seen:
    """Looks at every example of all splits once; parts that are there are not made again.

    Args:
        index: The data set.
        channels: 1 or 3.
        network: The network whose features are wanted; None for none.
        folder: Where the parts go; its name stands for all that decides them.

    Raises:
        DataError: No example can be decoded.
    """
    shards = list(dict.fromkeys(index.examples["shard"].to_pylist()))
    progress = Progress("audit", index.examples.num_rows, "images")
    apply = None if network is None else _applied(network)
    parts = []
    for shard in shards:
        rows = index.examples.filter(pc.equal(index.examples["shard"], shard))
        for start in range(0, rows.num_rows, _PART):
            url = files.join(folder, f"part-{shard}-{start}.parquet")
            if not files.exists(url):
                some = rows.slice(start, _PART)
                write_table(url, _look_at(index, some, channels, network, apply))
            parts.append(read_table(url))
            progress.add(parts[-1].num_rows)
    rejects = [row for part in parts for row in json.loads(part.schema.metadata[_REJECTS])]
    seen = [part.replace_schema_metadata(None) for part in parts if part.num_rows]
    if not seen:
        reason = rejects[0]["reason"] if rejects else "there is none"
        raise DataError(f"an audit must have an image, got none that can be decoded: {reason}")
    table = pa.concat_tables(seen)
    has_features = "features" in table.column_names
    return Seen(
        table.select(_FACTS.names),
        _vectors(table["descriptor"]),
        _vectors(table["features"]) if has_features else None,
        _pictures(table["small"]),
        rejects,
    )


def squares(index: Index, seen: Seen, channels: int, side: int) -> NDArray[np.uint8]:
    """Returns every image that was seen as a square, uint8 ``[N, C, side, side]``, in its order.

    Args:
        index: The data set.
        seen: What was seen of it.
        channels: 1 or 3.
        side: In pixels.
    """
    found = np.empty((seen.rows.num_rows, channels, side, side), np.uint8)
    place = {key: at for at, key in enumerate(seen.rows["key"].to_pylist())}
    rows = index.examples
    decode = _decoder(channels)
    with ThreadPoolExecutor(_threads()) as pool:
        for key, pixels in ordered_map(
            pool, lambda e: (e.key, _square(decode(e), side)), read_rows(index, rows), 4 * _CHUNK
        ):
            if key in place and pixels is not None:
                found[place[key]] = pixels.transpose(2, 0, 1)
    return found


def typical_side(rows: pa.Table, most: int) -> int:
    """Returns the side of the squares that images are trained on: their middle one, at most `most`.

    Args:
        rows: With width and height.
        most: In pixels.
    """
    shorter = np.minimum(rows["width"].to_numpy(), rows["height"].to_numpy())
    return int(min(most, np.median(shorter)))


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _decoder(channels: int) -> Callable[[EncodedExample], NDArray[np.uint8] | DataError]:
    def decode(example: EncodedExample) -> NDArray[np.uint8] | DataError:
        try:
            return decode_image(example.image, channels=channels)
        except DataError as error:
            return error

    return decode


def _square(pixels: NDArray[np.uint8] | DataError, side: int) -> NDArray[np.uint8] | None:
    if isinstance(pixels, DataError):
        return None
    if pixels.shape[:2] == (side, side):
        return pixels
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    found = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    return found.reshape(side, side, pixels.shape[2])


def _look_at(
    index: Index,
    rows: pa.Table,
    channels: int,
    network: Network | None,
    apply: Callable[[NDArray[np.uint8]], NDArray] | None,
) -> pa.Table:
    """Returns the part of some rows of a shard."""
    splits = dict(zip(rows["key"].to_pylist(), rows["split"].to_pylist(), strict=True))
    decode = _decoder(channels)

    def see(
        example: EncodedExample,
    ) -> tuple[EncodedExample, PictureFacts | DataError, NDArray[np.uint8] | None]:
        pixels = decode(example)
        if isinstance(pixels, DataError):
            return example, pixels, None
        if network is None:
            return example, picture_facts(pixels), None
        try:
            square = network.preprocess.decode(example).transpose(2, 0, 1)
        except DataError as error:
            return example, error, None
        return example, picture_facts(pixels), square

    kept: list[tuple[EncodedExample, PictureFacts]] = []
    rejects: list[dict[str, str]] = []
    features: list[NDArray] = []
    waiting: list[NDArray[np.uint8]] = []
    with ThreadPoolExecutor(_threads()) as pool:
        for example, facts, square in ordered_map(pool, see, read_rows(index, rows), _CHUNK):
            if isinstance(facts, DataError):
                rejects.append({"shard": example.shard, "key": example.key, "reason": str(facts)})
                continue
            kept.append((example, facts))
            if square is not None:
                waiting.append(square)
            if apply is not None and len(waiting) == _CHUNK:
                features.append(apply(np.stack(waiting)))
                waiting = []
    if apply is not None and waiting:
        features.append(apply(np.stack(waiting)))
    return _part(kept, splits, features, rejects)


def _part(
    kept: list[tuple[EncodedExample, PictureFacts]],
    splits: dict[str, str],
    features: list[NDArray],
    rejects: list[dict[str, str]],
) -> pa.Table:
    records = [
        {
            "key": example.key,
            "key_hash": example.key_hash,
            "shard": example.shard,
            "label": example.label,
            "split": splits[example.key],
            **{name: getattr(facts, name) for name in _FACTS.names[5:]},
        }
        for example, facts in kept
    ]
    table = pa.Table.from_pylist(records, _FACTS)
    width = FREQUENCIES**2 - 1
    descriptors = [facts.descriptor for _, facts in kept]
    table = table.append_column("descriptor", _lists(np.array(descriptors).reshape(-1, width)))
    small = pa.array([facts.small.tobytes() for _, facts in kept], pa.binary(SIDE * SIDE))
    table = table.append_column("small", small)
    if features:
        table = table.append_column("features", _lists(np.concatenate(features)))
    return table.replace_schema_metadata({_REJECTS: json.dumps(rejects)})


def _lists(values: NDArray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    width = column.type.list_size
    arrays: Iterator[NDArray] = (
        chunk.flatten().to_numpy().reshape(-1, width) for chunk in column.chunks
    )
    return np.concatenate(list(arrays))


def _pictures(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    whole = b"".join(one.as_py() for one in column)
    return np.frombuffer(whole, np.uint8).reshape(-1, SIDE, SIDE)


def _applied(network: Network) -> Callable[[NDArray[np.uint8]], NDArray]:
    """Returns what gives the features of images ``[B, C, H, W]``."""
    import torch

    built, normalize = network.source.build(), network.preprocess.normalize
    device = device_here(network.device)
    built.to(device).to(memory_format=torch.channels_last)

    def apply(images: NDArray[np.uint8]) -> NDArray:
        with numerics("exact", device):
            found, _ = outputs(
                built, normalize, torch.from_numpy(images), torch.arange(len(images))
            )
        return found.numpy()

    return apply
