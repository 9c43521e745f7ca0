"""The stage train: a network on the whole training split."""

import logging
from typing import Any

from raygrad.config import StudyConfig, TrainConfig
from raygrad.config_values import identity
from raygrad.data.index import read_index, read_table
from raygrad.engine.session import ensure_ray
from raygrad.engine.train import job as train_engine
from raygrad.pipeline.data_ways import training_data
from raygrad.pipeline.noticing import refuse_changed_shards, training_code
from raygrad.pipeline.replicates import compared_networks, trained_replicates
from raygrad.pipeline.stages import facts_of, stage, training_inputs
from raygrad.runs.layout import RunLayout
from raygrad.runs.reject_table import rejects_kept
from raygrad.storage import files
from raygrad.storage.manifest import digest
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.dynamics import DYNAMICS_COLUMNS
from raygrad.training.losses import check_named_loss
from raygrad.training.measurements import DYNAMICS_FILE, write_dynamics_scores
from raygrad.training.starting import initial_network
from raygrad.training.study_data import StudyData

log = logging.getLogger("raygrad")


def train(config: StudyConfig) -> dict[str, Any]:
    """Trains the network on the whole training split; returns its metrics.

    With `dynamics` there is a score table `<network>-dynamics` too; with `score_seeds` a network is
    trained from each of them, as `<network>-seed<seed>`; with `compare_networks` these are trained.
    Images that cannot be decoded are counted, and stand in `rejects.parquet` beside the checkpoint.

    Raises:
        ConfigError: A network of the user's own is to be scored from several seeds.
        TooManyRejectsError: More than `max_reject_share` of the images cannot be decoded.
    """
    refuse_changed_shards(config)
    others = [*trained_replicates(config), *compared_networks(config)]
    metrics = _train(config, config.train.network)
    for other, name in others:
        _train(other, name)
    return metrics


def _train(config: StudyConfig, network: str) -> dict[str, Any]:
    """Trains one network into the folders of a name."""
    layout = RunLayout(config.run)
    data_digest = facts_of(layout, "prepare")["digest"]
    inputs = training_inputs(config)
    code = training_code(config)

    def do() -> dict[str, Any]:
        _tell_unused(config.train)
        with rejects_kept(layout.train(network)):
            data = training_data(config)
        # What cannot be built is said here, in a line, and not by a worker.
        if isinstance(data, StudyData):
            initial_network(config.train.network, config.train, data.spec, config.train.seed)
            check_named_loss(config.train.loss, data.spec.num_classes)
        ensure_ray()
        task = train_engine.TrainTask(
            config=config.train,
            # Of other code, an unfinished training begins anew.
            inputs_digest=digest([inputs, code]) if code else inputs,
            folder=files.join(layout.train(network), "ray"),
            checkpoint_url=layout.checkpoint(network),
            metrics_url=layout.metrics(network),
            measured_url=layout.train(network),
        )
        with rejects_kept(layout.train(network)):
            metrics = train_engine.train(task, data, config.wait_s)
        checkpoint_digest = load_checkpoint(layout.checkpoint(network)).digest()
        if config.train.dynamics:
            provenance = {
                "checkpoint": checkpoint_digest,
                "data": data_digest,
                "columns": ",".join(DYNAMICS_COLUMNS),
                "dtype": identity(config.train)["precision"],
            }
            if config.train.dynamics_epochs is not None:
                provenance["dynamics_epochs"] = str(config.train.dynamics_epochs)
            found = read_table(files.join(layout.train(network), DYNAMICS_FILE))
            url = layout.scores(f"{network}-dynamics")
            write_dynamics_scores(found, read_index(layout.data), url, provenance)
        return {"digest": checkpoint_digest, **metrics}

    return stage(layout, f"train-{network}", inputs, do, code)


def _tell_unused(train: TrainConfig) -> None:
    """Says what a recipe carries and this training does not come to."""
    for name in ("keep_epochs", "bound_epochs"):
        late = [str(epoch) for epoch in getattr(train, name) if epoch > train.epochs]
        if late:
            log.info("train: %s %s: not reached in %d epochs", name, " ".join(late), train.epochs)
