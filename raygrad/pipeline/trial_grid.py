"""Every retraining that a configuration asks for, each with the file of its subset."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.config import StudyConfig
from raygrad.data.index import read_index
from raygrad.errors import ConfigError, DataError
from raygrad.pipeline.replicates import Replicate
from raygrad.pipeline.selecting import draw_missing, grid, score_sources, subset_url
from raygrad.pipeline.stages import retraining_inputs
from raygrad.runs.layout import RunLayout
from raygrad.runs.subsets import read_subset
from raygrad.storage import files
from raygrad.storage.urls import expand
from raygrad.training.retraining import positions_of
from raygrad.training.trial import Trial


@dataclass(frozen=True)
class _Subset:
    """A subset's file and what its trials say of it; the file is read once."""

    url: str
    method: str
    keep_fraction: float
    seed: int
    score_network: str | None
    score_column: str | None
    score_run: str | None
    budget: int
    digest: str
    replicate: Replicate | None = None


def planned_trials(
    config: StudyConfig, own: Sequence[str] = (), redo: bool = False
) -> list[tuple[Trial, str]]:
    """Returns every trial that the configuration asks for, with its subset's file.

    The subsets are read one at a time and only counted and hashed here; each trial reads its own.

    Args:
        config: The study.
        own: Files of subsets that were made elsewhere, in place of those that the study draws;
            globs and braces as of shards.
        redo: Draw again subsets that were drawn otherwise.

    Raises:
        ConfigError: A file is no subset, or two of `own` cannot be told apart.
        DataError: A key of `own` is not in the training split, or stands twice.
    """
    networks = config.sweep.networks or (config.train.network,)
    inputs = {network: retraining_inputs(config, network) for network in networks}
    trials = []
    for found in _own_subsets(config, own) if own else _drawn_subsets(config, redo):
        for network in networks:
            for protocol in config.sweep.protocols:
                trial = Trial(
                    network=network,
                    score_network=found.score_network,
                    score_column=found.score_column,
                    score_run=found.score_run,
                    method=found.method,
                    keep_fraction=found.keep_fraction,
                    budget=found.budget,
                    seed=found.seed,
                    protocol=protocol,
                    subset_digest=found.digest,
                    config_digest=inputs[network],
                    score_seed=found.replicate.seed if found.replicate else None,
                    score_replicate=found.replicate.number if found.replicate else None,
                )
                trials.append((trial, found.url))
    return trials


def _drawn_subsets(config: StudyConfig, redo: bool) -> Iterator[_Subset]:
    draw_missing(config, redo)
    for source in score_sources(config):
        for cell in grid(config.select):
            url = subset_url(config, source, cell)
            found = _described(url, cell[1], *read_subset(url), source.run)
            yield dataclasses.replace(found, replicate=source.replicate)


def _own_subsets(config: StudyConfig, own: Sequence[str]) -> Iterator[_Subset]:
    """Returns subsets made elsewhere, once their keys are known to be in the training split."""
    train_keys = read_index(RunLayout(config.run).data).rows("train")["key"].combine_chunks()
    seen: dict[tuple[str, int, int], str] = {}
    for url in map(files.absolute, expand(own)):
        subset, origin = read_subset(url)
        try:
            positions_of(subset["key"].combine_chunks(), train_keys)
        except DataError as error:
            raise DataError(f"{error} It is {url}.") from error
        name = origin["method"], subset.num_rows, origin["seed"]
        if name in seen:
            raise ConfigError(
                "subsets must differ in method, size or seed, got "
                f"{seen[name]} and {url}. Name them METHOD-SEED.parquet."
            )
        seen[name] = url
        said = origin["keep_fraction"]
        fits = said is not None and max(1, round(said * len(train_keys))) == subset.num_rows
        share = said if fits else subset.num_rows / len(train_keys)
        yield _described(url, share, subset, origin)


def _described(
    url: str,
    keep_fraction: float,
    subset: pa.Table,
    origin: dict[str, Any],
    score_run: str | None = None,
) -> _Subset:
    return _Subset(
        url,
        origin["method"],
        keep_fraction,
        origin["seed"],
        origin["score_network"],
        origin["score_column"],
        score_run,
        subset.num_rows,
        keys_digest(subset["key"]),
    )


def keys_digest(keys: pa.ChunkedArray) -> str:
    """Returns a hash of a set of keys, the same in any order, without a Python string a key."""
    ordered = pa.array(keys.take(pc.sort_indices(keys)).cast(pa.large_string()).combine_chunks())
    _, offsets, characters = ordered.buffers()
    ends = np.frombuffer(offsets, np.int64)[ordered.offset : ordered.offset + len(ordered) + 1]
    state = hashlib.blake2b(np.diff(ends).tobytes(), digest_size=16)
    state.update(memoryview(characters or b"")[ends[0] : ends[-1]])
    return state.hexdigest()
