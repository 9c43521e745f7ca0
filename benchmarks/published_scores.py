"""The scores of a data set as a file that others can use: a row an image, below a megabyte.

    python -m benchmarks.published_scores --run RUN --networks cnn cnn-seed1 cnn-seed2 --out FILE
    ... --final grad_l2_last_layer_weights grad_l2_weights loss el2n --dynamics

Rows are named by what the data set itself has, and not by a run folder: the number of the image in
the split as it is published (of class folders, its file), and a digest of its pixels, by which
anybody can check that the row is of the image that they hold. Scores are means over the scoring
networks.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.recording import recorded
from raygrad.data.arrays import load_arrays
from raygrad.data.index import read_index
from raygrad.pipeline.stages import facts_of_data
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import read_score_table

FINAL = ("grad_l2_weights",)
"""Of the trained network."""
DYNAMICS = ("el2n_mean", "forgetting")
"""Over the epochs of its training; forgetting is infinite where an image was never learnt."""


def pixel_digest(image: NDArray[np.uint8]) -> int:
    """Returns the first 32 bits of the SHA-256 of an image's pixels.

    Args:
        image: uint8 `[C, H, W]`; the digest is of its bytes in that order.
    """
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:4], "big")


def mean_scores(
    layout: RunLayout,
    networks: Sequence[str],
    final: Sequence[str] = FINAL,
    dynamics: Sequence[str] = DYNAMICS,
) -> pa.Table:
    """Returns key and label with each score's mean over the networks, float32, ordered by key."""
    of: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*final, *dynamics)}
    keys: list[str] | None = None
    for network in networks:
        for name, columns in ((network, final), (f"{network}-dynamics", dynamics)):
            if not columns:
                continue
            table = read_score_table(layout.scores(name)).sort_by("key")
            assert keys is None or table["key"].to_pylist() == keys, f"{name} has other images"
            keys = table["key"].to_pylist()
            labels = table["label"]
            for column in columns:
                of[column].append(table[column].to_numpy())
    means = {name: np.float32(np.mean(values, 0)) for name, values in of.items()}
    return pa.table({"key": keys, "label": labels.cast(pa.int16()), **means})


def published(
    run: str,
    networks: Sequence[str],
    final: Sequence[str] = FINAL,
    dynamics: Sequence[str] = DYNAMICS,
) -> pa.Table:
    """Returns the table: index or file, digest, label and scores, ordered by the first.

    Args:
        run: A run folder with its shards.
        networks: Its scoring networks, as folders of scores are named.
        final: Columns of the trained networks' scores.
        dynamics: Columns of what was followed while they trained.
    """
    layout = RunLayout(run)
    table = mean_scores(layout, networks, final, dynamics)
    index = read_index(layout.data)
    arrays = load_arrays(index, "train", channels=facts_of_data(layout)["channels"])
    digests = dict(zip(arrays.keys, map(pixel_digest, arrays.images), strict=True))
    keys = table["key"].to_pylist()
    named = names_of(keys) | {"digest": pa.array([digests[key] for key in keys], pa.uint32())}
    columns = {name: table[name] for name in table.column_names if name != "key"}
    return pa.table({**named, **columns}).sort_by(next(iter(named)))


def names_of(keys: Sequence[str]) -> dict[str, pa.Array]:
    """Returns how the data set itself names images: by number, or by file in class folders."""
    numbered = [re.fullmatch(r".*-(\d+)", key) for key in keys]
    if all(numbered):
        return {"index": pa.array([int(of[1]) for of in numbered if of], pa.int32())}
    return {"file": pa.array(keys, pa.string())}


def write(table: pa.Table, out: Path, made_of: dict[str, object]) -> None:
    """Writes the table small, with what it was made of in its metadata."""
    table = table.replace_schema_metadata({"raygrad": json.dumps(made_of)})
    floats = [name for name in table.column_names if pa.types.is_floating(table[name].type)]
    plain = [name for name in floats if name != "forgetting"]
    pq.write_table(
        table, out, compression="zstd", compression_level=19,
        use_dictionary=[name for name in table.column_names if name not in plain],
        use_byte_stream_split=plain,
    )  # fmt: skip


def main() -> None:
    """Writes the file, and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--networks", nargs="+", required=True)
    parser.add_argument("--final", nargs="+", default=list(FINAL), help="columns of scores")
    parser.add_argument("--dynamics", nargs="*", default=list(DYNAMICS), help="of training")
    parser.add_argument("--out", required=True)
    args, record = recorded(parser, "The scores of a data set's training images, as a file")
    layout = RunLayout(args.run)
    train = json.loads(Path(f"{args.run}/config.json").read_text())["train"]
    made_of = {
        "source": facts_of_data(layout).get("source"),
        "networks": len(args.networks),
        "train": train,
        "digest": "first 32 bits of the SHA-256 of the pixels, uint8 [C, H, W]",
    }
    table = published(args.run, args.networks, args.final, args.dynamics)
    out = Path(args.out)
    write(table, out, made_of)
    for name in (name for name in table.column_names if name != "file"):
        values = table[name].to_numpy().astype(np.float64)
        quantiles = np.quantile(values, (0.0, 0.5, 0.9, 0.99, 1.0), method="lower").tolist()
        record.add(column=name, type=str(table[name].type), quantiles_0_50_90_99_100=quantiles)
    record.add(
        file=out.name,
        rows=table.num_rows,
        sha256=hashlib.sha256(out.read_bytes()).hexdigest(),
        **made_of,
    )
    print(f"{out}: {table.num_rows} rows, {', '.join(table.column_names)}, {out.stat().st_size} B")


if __name__ == "__main__":
    main()
