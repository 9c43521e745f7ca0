"""A data set in memory, subsets of it on disk and trials over them, for tests of sweeps."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.config import TrainConfig
from raygrad.data.arrays import ImageArrays
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.runs.layout import RunLayout
from raygrad.training.preprocess import Normalize
from raygrad.training.study_data import StudyData
from raygrad.training.trial import Trial

RECIPE = TrainConfig(
    network="linear", epochs=3, batch_size=16, lr_decay_epochs=(), learning_rate=0.05
)
COMPARED = (
    *("trial", "network", "method", "keep_fraction", "budget", "seed", "protocol"),
    *("subset_digest", "config_digest", "subset_seed", "init_seed", "order_seed"),
    *("test_accuracy", "test_loss", "val_accuracy", "val_loss", "best_epoch", "epochs"),
    *("steps", "examples_seen", "num_workers", "device", "ended_early"),
)


def make_arrays(rng: np.random.Generator, prefix: str, size: int) -> ImageArrays:
    """Images of three classes that a linear network tells apart, but not perfectly."""
    labels = rng.integers(0, 3, size)
    images = rng.integers(0, 160, (size, 1, 8, 8)).astype(np.uint8)
    images[np.arange(size), 0, labels, :3] += 60
    keys = [f"{prefix}{at:04d}" for at in range(size)]
    return ImageArrays(images, labels, keys, pa.Table.from_pylist([], REJECT_SCHEMA))


def make_data() -> StudyData:
    """A data set of 300 training, 90 validation and 90 test examples."""
    rng = np.random.default_rng(0)
    train, val, test = (make_arrays(rng, n, s) for n, s in (("t", 300), ("v", 90), ("e", 90)))
    return StudyData(train, val, test, num_classes=3, normalize=Normalize((0.4,), (0.25,)))


def make_trials(
    layout: RunLayout, data: StudyData, *, network: str = "linear", seeds=(0, 1), budgets=(40, 90)
) -> list[tuple[Trial, str]]:
    """Random subsets, written as the stage select writes them, and a trial for each."""
    planned = []
    for budget in budgets:
        for seed in seeds:
            keys = np.random.default_rng([seed, budget]).permutation(data.train.keys)[:budget]
            url = layout.subset("random", budget / 300, seed)
            table = pa.table({"key": keys.tolist(), "weight": np.ones(budget)})
            meta = {b"raygrad.subset": json.dumps({"seed": seed}).encode()}
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.replace_schema_metadata(meta), url)
            trial = Trial(
                network=network,
                score_network="linear",
                score_column="loss",
                method="random",
                keep_fraction=budget / 300,
                budget=budget,
                seed=seed,
                protocol="equal_epochs",
                subset_digest=f"{budget}-{seed}",
                config_digest="recipe",
            )
            planned.append((trial, url))
    return planned


def comparable(results: pa.Table) -> list[dict]:
    """The rows of a table of results without what time and machine decide."""
    return results.select(list(COMPARED)).to_pylist()
