"""The stage train: a network on the whole training split."""

from typing import Any

from raygrad.config import StudyConfig, identity
from raygrad.data import storage
from raygrad.data.layout import RunLayout
from raygrad.data.manifest import digest
from raygrad.engine import train as train_engine
from raygrad.engine.session import ensure_ray
from raygrad.pipeline.stages import facts_of, stage, study_data
from raygrad.training.checkpoints import load_checkpoint


def train(config: StudyConfig) -> dict[str, Any]:
    """Trains the network on the whole training split; returns its metrics."""
    layout, network = RunLayout(config.run), config.train.network
    inputs = digest({"data": facts_of(layout, "prepare")["digest"], **identity(config.train)})

    def do() -> dict[str, Any]:
        ensure_ray()
        metrics = train_engine.train(
            config.train,
            inputs,
            study_data(layout),
            storage.join(layout.train(network), "ray"),
            layout.checkpoint(network),
            layout.metrics(network),
        )
        return {"digest": load_checkpoint(layout.checkpoint(network)).digest(), **metrics}

    return stage(layout, f"train-{network}", inputs, do)
