"""The whole study on scikit-learn's 1,797 handwritten digits: minutes on a laptop, no network.

A linear network and an MLP are trained and scored beside the CNN, and its training is followed, so
that the report has every figure there is.
"""

import sys

from raygrad.cli import job
from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)

CONFIG = StudyConfig(
    run="runs/digits",
    data=DataConfig(source="digits", shard_bytes=400_000),
    train=TrainConfig(
        network="cnn",
        epochs=30,
        batch_size=32,
        optimizer="adamw",
        learning_rate=2e-3,
        dynamics=True,
        probe_size=256,
        bound_epochs=(1, 5, 10),
        bound_batches=40,
    ),
    score=ScoreConfig(
        columns=("grad_l2_last_layer_weights", "grad_l2_weights", "loss", "el2n", "entropy")
    ),
    select=SelectConfig(
        keep_fractions=(0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0),
        seeds=(0, 1, 2),
        compare_networks=("linear", "mlp"),
    ),
    sweep=SweepConfig(protocols=("equal_epochs",)),
)

if __name__ == "__main__":
    sys.exit(job(CONFIG))
