"""The paper's study of CIFAR-100: VGG16 adapted to 32 pixels (Figure 8b of arXiv 1811.12569).

    python jobs/cifar100.py --data.data-dir DIR [--data.download]

Scores are l2 norms of the last layer's weight gradients, as for CIFAR-10; a tenth of the images a
class is what sets the two apart.
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
    run="runs/cifar100",
    data=DataConfig(source="cifar100", shard_bytes=8 * 2**20),
    train=recipe("cifar100", "vgg16_32"),
    score=ScoreConfig(columns=("grad_l2_last_layer_weights", "grad_l2_weights", "loss")),
    select=SelectConfig(
        methods=("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf"),
        keep_fractions=(0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0),
        seeds=(0, 1, 2),
    ),
    sweep=SweepConfig(protocols=("equal_epochs",)),
)

SMOKE = replace(
    CONFIG,
    run="runs/cifar100-smoke",
    data=replace(CONFIG.data, max_examples=600),
    train=replace(recipe("cifar100", "cnn5"), epochs=3, lr_decay_epochs=(2,), bound_epochs=(1,)),
    select=replace(CONFIG.select, keep_fractions=(0.1, 0.3, 1.0), seeds=(0,)),
)

if __name__ == "__main__":
    sys.exit(job(CONFIG, SMOKE))
