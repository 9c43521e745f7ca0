"""The paper's study of CIFAR-10, by three scoring networks and the fast recipe.

    python jobs/cifar10.py --data.data-dir DIR [--data.download]

The data set as JPEG files in class folders:
`python jobs/cifar10.py image-folder --data.data-dir DIR`. `--train.numerics bf16` halves the time
on GPUs, and on processors with instructions for it; the paper's networks are
`--recipe cifar10/vgg16_32`, `cifar10/cnn5` and `cifar10/linear`. Scores are l2 norms of the last
layer's weight gradients (Figure 8a of arXiv 1811.12569).
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
    run="runs/cifar10",
    data=DataConfig(source="cifar10", shard_bytes=8 * 2**20),
    train=recipe("cifar10", "airbench94"),
    score=ScoreConfig(columns=("grad_l2_last_layer_weights", "grad_l2_weights", "loss", "el2n")),
    select=SelectConfig(
        methods=("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf"),
        keep_fractions=(0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0),
        seeds=(0,),
        score_seeds=(0, 1, 2),
    ),
    sweep=SweepConfig(protocols=("equal_epochs",)),
)

SMOKE = replace(
    CONFIG,
    run="runs/cifar10-smoke",
    data=replace(CONFIG.data, max_examples=400),
    train=replace(recipe("cifar10", "cnn5"), epochs=3, lr_decay_epochs=(2,), bound_epochs=(1,)),
    select=replace(CONFIG.select, keep_fractions=(0.1, 0.3, 1.0), score_seeds=()),
)

if __name__ == "__main__":
    sys.exit(job(CONFIG, SMOKE))
