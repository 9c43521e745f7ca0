"""The stage sweep: a network retrained on every subset."""

import functools

import pyarrow as pa

from raygrad.config import StudyConfig, identity
from raygrad.data.layout import RunLayout
from raygrad.data.manifest import digest
from raygrad.data.subsets import read_subset
from raygrad.engine import sweep as sweep_engine
from raygrad.pipeline.selecting import grid
from raygrad.pipeline.stages import facts_of, study_data
from raygrad.training.trials import Trial


def sweep(config: StudyConfig) -> pa.Table:
    """Retrains the network on every subset; returns the table of results."""
    layout = RunLayout(config.run)
    data_digest = facts_of(layout, "prepare")["digest"]
    config_digest = digest({"data": data_digest, **identity(config.train)})
    trials = []
    for method, keep_fraction, seed in grid(config.select):
        subset, origin = read_subset(layout.subset(method, keep_fraction, seed))
        for protocol in config.sweep.protocols:
            trial = Trial(
                network=config.train.network,
                score_network=origin["score_network"],
                score_column=origin["score_column"],
                method=method,
                keep_fraction=keep_fraction,
                budget=subset.num_rows,
                seed=seed,
                protocol=protocol,
                subset_digest=digest(sorted(subset["key"].to_pylist())),
                config_digest=config_digest,
            )
            trials.append((trial, subset["key"]))
    return sweep_engine.sweep(
        config.sweep, config.train, trials, layout, functools.partial(study_data, layout)
    )
