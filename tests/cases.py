"""Small configurations and data that several tests share."""

from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)


def make_tiny_config(folder):
    """A study of the digits that takes seconds: a linear network, few epochs, few subsets."""
    return StudyConfig(
        run=str(folder / "run"),
        data=DataConfig(source="digits", shard_bytes=800_000),
        train=TrainConfig(network="linear", epochs=3, lr_decay_epochs=(2,)),
        score=ScoreConfig(),
        select=SelectConfig(
            methods=("random", "max_gradient"), keep_fractions=(0.05, 1.0), seeds=(0, 1)
        ),
        sweep=SweepConfig(protocols=("equal_epochs", "equal_steps")),
    )
