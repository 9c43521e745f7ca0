"""Claim: the report of a score table of ImageNet's size takes at most 60 s and 2 GiB.

Writes a run folder with a synthetic score table (two networks, log-normal norms that differ by
class and agree between the networks as far as two trained networks do), an index into a few real
tars of JPEG images, and a sweep's results; then makes the report in a process of its own and prints
its wall time, its processor time, its peak resident memory and the size of the page.

    python benchmarks/report_scale.py --rows 1281167 --classes 1000 --out /tmp/report-scale
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from recording import recorded

from raygrad.data.index import Index, build_index, write_index, write_table
from raygrad.runs.score_table import write_manifest, write_part
from raygrad.storage.manifest import write_json

COLUMNS = (
    "grad_l2_last_layer_weights",
    "grad_l2_weights",
    "grad_l1_weights",
    "loss",
    "el2n",
    "margin",
    "entropy",
)
NETWORKS = ("alexnet", "vgg16")
PICTURES = 64  # images a shard has of its own; its rows point at them in turn


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG of 500 x 375 smooth pixels, about as large as a photograph of ImageNet."""
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def write_data(run: Path, rows: int, classes: int, shards: int, rng: np.random.Generator) -> Index:
    """Tars, and an index of ``rows`` examples that point into them."""
    folder = run / "data" / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    urls = []
    for shard in range(shards):
        path = folder / f"train-{shard:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for i in range(PICTURES):
                for suffix, content in (("jpg", photograph(rng)), ("cls", b"0")):
                    member = tarfile.TarInfo(f"{shard}-{i}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        urls.append(str(path))
    real = build_index(urls, [], val_fraction=0.1)
    names = real.shards["name"].to_pylist()
    by_shard = real.examples.sort_by([("shard", "ascending"), ("offset", "ascending")])
    places = np.stack([by_shard[c].to_numpy() for c in ("offset", "size")], axis=1)
    places = places.reshape(shards, PICTURES, 2)
    of_shard = np.sort(np.arange(rows) % shards)
    within = np.arange(rows) % PICTURES
    offsets = places[of_shard, within]
    # Keys so long that a tar's plain header cannot hold them: the reader then does not hold a
    # picture's name against its row, of which many share one.
    keys = np.char.zfill(np.arange(rows).astype(str), 95)
    index = Index(
        pa.table(
            {
                "key": keys,
                "key_hash": rng.integers(0, 2**63, rows).astype(np.uint64),
                "shard": np.array(names)[of_shard],
                "offset": offsets[:, 0],
                "size": offsets[:, 1],
                "label": rng.integers(0, classes, rows),
                "split": np.full(rows, "train"),
            },
            real.examples.schema,
        ),
        real.shards,
        real.rejects,
    )
    write_index(str(run / "data"), index)
    write_json(
        str(folder / "dataset.json"),
        {
            "source": "synthetic",
            "classes": [f"class {i}" for i in range(classes)],
            "channels": 3,
            "counts": {"train": rows, "test": 50_000},
        },
    )
    return index


def write_scores(run: Path, index: Index, classes: int, rng: np.random.Generator) -> None:
    """Score tables of both networks, a part a shard."""
    labels = index.examples["label"].to_numpy()
    rows = len(labels)
    hardness = rng.normal(size=classes)[labels] + rng.normal(size=rows)
    for network in NETWORKS:
        mine = hardness + rng.normal(size=rows)
        wrong = mine > 2
        columns = {
            name: np.exp(mine + 0.3 * rng.normal(size=rows)).astype(np.float32) for name in COLUMNS
        }
        table = pa.table(
            {
                "key": index.examples["key"],
                "shard": index.examples["shard"],
                "label": labels,
                **columns,
                "prediction": np.where(wrong, (labels + 1) % classes, labels),
                "correct": ~wrong,
            }
        )
        folder = str(run / "scores" / network)
        provenance = {"network": network}
        start = 0
        for name, size in index.counts("train").items():
            write_part(folder, name, table.slice(start, size), provenance)
            start += size
        write_manifest(folder, index.shards["name"].to_pylist(), provenance)


def write_sweep(run: Path, rng: np.random.Generator) -> None:
    """Results of four methods, five fractions and three seeds."""
    rows = [
        {
            "network": "vgg16",
            "score_network": "vgg16",
            "score_column": COLUMNS[0],
            "method": method,
            "keep_fraction": fraction,
            "seed": seed,
            "protocol": "equal_epochs",
            "test_accuracy": 0.7 * fraction**0.1 + rng.normal(0, 0.002),
            "train_time_s": 1e5 * fraction,
        }
        for method in ("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf")
        for fraction in (0.05, 0.1, 0.3, 0.6, 1.0)
        for seed in range(3)
    ]
    write_table(str(run / "sweep" / "results.parquet"), pa.Table.from_pylist(rows))


def measure(run: Path) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak resident GiB of the report's own process."""
    program = f"from raygrad.report import write_report; write_report([{str(run)!r}])"
    start_s = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", program])
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - start_s
    assert status == 0, "the report failed"
    return wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Prepares the folder if it is not there, then measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args, record = recorded(parser, "The report of a data set of ImageNet's size stays small.")
    run = args.out / f"run-{args.rows}-{args.classes}-{args.shards}"
    if not (run / "sweep").exists():
        rng = np.random.default_rng(0)
        index = write_data(run, args.rows, args.classes, args.shards, rng)
        write_scores(run, index, args.classes, rng)
        write_sweep(run, rng)
    print(f"{args.rows} rows, {args.classes} classes, {len(NETWORKS)} networks")
    print(f"{'wall s':>8} {'cpu s':>8} {'peak GiB':>9} {'page MB':>8}")
    for _ in range(args.repeats):
        wall_s, cpu_s, peak = measure(run)
        page = (run / "report" / "index.html").stat().st_size / 1e6
        record.add(wall_s=wall_s, cpu_s=cpu_s, peak_gib=peak, page_mb=page)
        print(f"{wall_s:8.1f} {cpu_s:8.1f} {peak:9.2f} {page:8.1f}", flush=True)


if __name__ == "__main__":
    main()
