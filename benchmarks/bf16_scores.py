"""What bf16 does to scores: rank correlation with float32, and overlap of the hardest.

    python benchmarks/bf16_scores.py --run runs/mnist --networks cnn --examples 10000

The networks are trained ones of a run folder, the examples the first of its training split. Times
are CPU times of one thread, the two in turn, batch by batch.
"""

import argparse
import time

import numpy as np
import torch
from recording import Record, recorded
from scipy.stats import spearmanr

from raygrad import pipeline
from raygrad.engine.score.networks import NetworkScorer
from raygrad.pipeline.data_ways import study_data
from raygrad.runs.layout import RunLayout
from raygrad.selection.analysis import overlap
from raygrad.training.checkpoints import load_checkpoint

COLUMNS = ("grad_l2_weights", "grad_l1_weights", "grad_l2_last_layer_weights", "loss", "el2n")
TOP = (0.01, 0.05, 0.1, 0.3)


def compare(
    layout: RunLayout, network: str, images: np.ndarray, labels: np.ndarray, record: Record
) -> None:
    """Prints and records one network's table."""
    checkpoint = load_checkpoint(layout.checkpoint(network))
    found: dict[str, dict[str, list]] = {}
    spent = dict.fromkeys(("exact", "bf16"), 0.0)
    scorers = {
        kind: NetworkScorer(
            [checkpoint.build()], checkpoint.normalize, COLUMNS, numerics=kind, batch_size=128
        )
        for kind in spent
    }
    for start in range(0, len(labels), 128):
        batch = slice(start, start + 128)
        for kind, scorer in scorers.items():
            begin = time.process_time()
            scores = scorer.score(images[batch], labels[batch])
            spent[kind] += time.process_time() - begin if start else 0.0
            for name in COLUMNS:
                found.setdefault(name, {}).setdefault(kind, []).append(scores[name])
    print(f"\n{network}, {len(labels)} examples, time {spent['bf16'] / spent['exact']:.2f}")
    print(f"{'column':28} {'rank corr.':>10} " + " ".join(f"{f'top {t:g}':>8}" for t in TOP))
    for name, values in found.items():
        full, half = (np.concatenate(values[d]).astype(np.float64) for d in ("exact", "bf16"))
        common = overlap(full, half)
        kept = [common[round(t * len(full)) - 1] for t in TOP]
        shares = " ".join(f"{one:8.3f}" for one in kept)
        rank = spearmanr(full, half).statistic
        print(f"{name:28} {rank:10.5f} {shares}")
        record.add(
            network=network,
            column=name,
            examples=len(labels),
            rank_correlation=rank,
            shared=dict(zip(map(str, TOP), kept, strict=True)),
            cpu_s=spent,
        )


def main() -> None:
    """Parses the flags and prints a table a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--networks", nargs="+", default=["cnn"])
    parser.add_argument("--examples", type=int, default=10_000)
    args, record = recorded(parser, "Scores in bf16 keep the order of those in float32.")
    torch.set_num_threads(1)
    config = pipeline.stored_config(args.run)
    data = study_data(RunLayout(args.run), config.data)
    images, labels = (x[: args.examples] for x in (data.train.images, data.train.labels))
    for network in args.networks:
        compare(RunLayout(args.run), network, np.asarray(images), np.asarray(labels), record)


if __name__ == "__main__":
    main()
