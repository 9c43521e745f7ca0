"""The paper's study of ImageNet: VGG16 trained and scored, retrained on subsets of its scores.

    python jobs/imagenet.py --data 's3://bucket/imagenet-train-{000000..001023}.tar' \
        --test-data 's3://bucket/imagenet-val-{000000..000049}.tar' --storage s3://bucket/runs/name

Any photographs in tars will do. Scores are l2 norms over all weights (Section 4.4 of arXiv
1811.12569); images are scaled to 256 x 256 and cut to 224 x 224.
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
    run="runs/imagenet",
    data=DataConfig(source="imagenet", image_size=224),
    train=replace(recipe("imagenet", "vgg16"), num_workers=8, device="cuda"),
    score=ScoreConfig(
        columns=("grad_l2_weights", "grad_l2_last_layer_weights", "loss"), device="cuda"
    ),
    select=SelectConfig(
        methods=("random", "max_gradient", "gradient_cdf"),
        keep_fractions=(0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
        seeds=(0,),
        score_column="grad_l2_weights",
    ),
    sweep=SweepConfig(
        protocols=("equal_epochs",), networks=("alexnet", "vgg16"), gpus_per_worker=1.0
    ),
)

SMOKE = replace(
    CONFIG,
    run="runs/imagenet-smoke",
    data=replace(CONFIG.data, max_examples=300, image_size=32),
    train=replace(
        recipe("cifar10", "vgg16_32"),
        epochs=2,
        batch_size=32,
        lr_decay_epochs=(),
        bound_epochs=(),
        num_workers=1,
    ),
    score=replace(CONFIG.score, device="auto"),
    sweep=SweepConfig(networks=("cnn5", "vgg16_32")),
    select=replace(CONFIG.select, keep_fractions=(0.2, 1.0)),
)

if __name__ == "__main__":
    sys.exit(job(CONFIG, SMOKE))
