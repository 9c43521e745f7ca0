"""Batch-aware subsets of a run's training split, as files that a sweep takes.

Errors and features of the last layer come from the run's trained network.

    python benchmarks/batch_aware_subsets.py --run runs/mnist --keep-fractions 0.01 0.1 --out OWN
    raygrad sweep --run runs/mnist --subsets 'OWN/*.parquet'
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from raygrad.pipeline.binding import stored_config
from raygrad.pipeline.data_ways import study_data
from raygrad.runs.layout import RunLayout
from raygrad.selection import draw
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.study_data import StudyData

BATCH_SIZE = 1000


def errors_and_features(
    checkpoint_url: str, data: StudyData
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns softmax minus one-hot `[N, C]` and what the last layer reads `[N, D]`."""
    checkpoint = load_checkpoint(checkpoint_url)
    network = checkpoint.build().eval()
    seen: list[torch.Tensor] = []
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    examples, errors = data.examples("train"), []
    with torch.no_grad():
        for start in range(0, len(examples), BATCH_SIZE):
            images = examples.between(start, start + BATCH_SIZE)
            labels = examples.labels[start : start + BATCH_SIZE].long()
            predicted = network(checkpoint.normalize(images)).softmax(1)
            errors.append(predicted - F.one_hot(labels, predicted.shape[1]))
    return torch.cat(errors).numpy(), torch.cat(seen).numpy()


def main() -> None:
    """Parses the flags and writes a file a keep_fraction and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True)
    parser.add_argument("--keep-fractions", type=float, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = stored_config(args.run)
    assert config is not None, f"no run folder in {args.run}"
    layout = RunLayout(config.run)
    data = study_data(layout, config.data)
    assert isinstance(data, StudyData), "more data than memory holds"
    errors, features = errors_and_features(layout.checkpoint(config.train.network), data)
    args.out.mkdir(parents=True, exist_ok=True)
    keys, scores = list(data.train.keys), {"errors": errors, "features": features}
    for fraction in args.keep_fractions:
        for seed in args.seeds:
            budget = round(fraction * len(keys))
            at = draw("batch_aware", scores, keys, budget, seed=seed, labels=data.train.labels)
            path = args.out / f"batch_aware-{fraction:g}-{seed}.parquet"
            pq.write_table(pa.table({"key": [keys[i] for i in at]}), path)
            print(path, flush=True)


if __name__ == "__main__":
    main()
