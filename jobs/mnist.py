"""The paper's study of MNIST: two convolutions and two fully connected layers, 50 epochs.

    python jobs/mnist.py --data.data-dir DIR [--data.download]

Scores are l2 norms of the last layer's weight gradients; subsets are as small as 175 images
(Figure 3 of arXiv 1811.12569). `--smoke` takes minutes on a laptop, `--plan` says what would run.
"""

import sys
from dataclasses import replace

from raygrad.cli import job
from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
)
from raygrad.training.recipes import recipe

CONFIG = StudyConfig(
    run="runs/mnist",
    data=DataConfig(source="mnist", shard_bytes=2**20),
    train=recipe("mnist", "cnn"),
    score=ScoreConfig(columns=("grad_l2_last_layer_weights", "grad_l2_weights", "loss")),
    select=SelectConfig(
        methods=("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf"),
        # 175 of 54,000 images, then as dense as Figure 3 where the methods change places.
        keep_fractions=(175 / 54_000, 0.006, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
        seeds=(0, 1, 2, 3, 4),
    ),
    sweep=SweepConfig(protocols=("equal_epochs",)),
)

SMOKE = replace(
    CONFIG,
    run="runs/mnist-smoke",
    data=replace(CONFIG.data, max_examples=500),
    train=replace(CONFIG.train, epochs=4, lr_decay_epochs=(3,), bound_epochs=(1,)),
    select=replace(CONFIG.select, keep_fractions=(0.1, 0.3, 1.0), seeds=(0,)),
)

if __name__ == "__main__":
    sys.exit(job(CONFIG, SMOKE))
