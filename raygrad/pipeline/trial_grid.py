"""Every retraining that a configuration asks for, each with the file of its subset."""

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.config import StudyConfig
from raygrad.config_values import identity
from raygrad.data.layout import RunLayout
from raygrad.data.manifest import digest
from raygrad.data.subsets import read_subset
from raygrad.pipeline.selecting import grid, score_source, select, subset_url
from raygrad.pipeline.stages import facts_of
from raygrad.training.trials import Trial


def planned_trials(config: StudyConfig) -> list[tuple[Trial, str]]:
    """Returns every trial that the configuration asks for, with its subset's file.

    The subsets are read one at a time and only counted and hashed here; each trial reads its own.
    """
    data_digest = facts_of(RunLayout(config.run), "prepare")["digest"]
    select(config)
    source = score_source(config)
    trials = []
    for cell in grid(config.select):
        url = subset_url(config, source, cell)
        subset, origin = read_subset(url)
        subset_digest = keys_digest(subset["key"])
        for network in config.sweep.networks or (config.train.network,):
            recipe = dataclasses.replace(config.train, network=network)
            for protocol in config.sweep.protocols:
                method, keep_fraction, seed = cell
                trial = Trial(
                    network=network,
                    score_network=origin["score_network"],
                    score_column=origin["score_column"],
                    method=method,
                    keep_fraction=keep_fraction,
                    budget=subset.num_rows,
                    seed=seed,
                    protocol=protocol,
                    subset_digest=subset_digest,
                    config_digest=digest({"data": data_digest, **identity(recipe)}),
                )
                trials.append((trial, url))
    return trials


def keys_digest(keys: pa.ChunkedArray) -> str:
    """Returns a hash of a set of keys, the same in any order, without a Python string a key."""
    ordered = pa.array(keys.take(pc.sort_indices(keys)).cast(pa.large_string()).combine_chunks())
    _, offsets, characters = ordered.buffers()
    ends = np.frombuffer(offsets, np.int64)[ordered.offset : ordered.offset + len(ordered) + 1]
    state = hashlib.blake2b(np.diff(ends).tobytes(), digest_size=16)
    state.update(memoryview(characters or b"")[ends[0] : ends[-1]])
    return state.hexdigest()
