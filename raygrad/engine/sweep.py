"""Retraining sweeps with Ray Tune: one trial a subset, one CPU a trial."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from numpy.typing import NDArray
from ray import tune

from raygrad.config import SweepConfig, TrainConfig
from raygrad.data import storage
from raygrad.data.layout import RunLayout
from raygrad.engine.session import ensure_ray, fitting_workers
from raygrad.errors import IncompleteError
from raygrad.progress import Progress
from raygrad.training.study_data import StudyData
from raygrad.training.trials import Trial, retrain

log = logging.getLogger("raygrad")


def sweep(
    config: SweepConfig,
    recipe: TrainConfig,
    trials: Sequence[tuple[Trial, pa.ChunkedArray]],
    layout: RunLayout,
    load_data: Callable[[], StudyData],
) -> pa.Table:
    """Retrains a network on every subset and returns the table of results.

    Each trial writes its own row when it ends, so that finished trials are never run again; Ray
    is started and the data set loaded only when a trial is missing.

    Args:
        config: How many trials at a time, and how often a failed one is tried again.
        recipe: How each is trained.
        trials: Each trial with the keys of its subset.
        layout: The run folder.
        load_data: Returns the data set in memory; every trial of a node shares one copy.

    Returns:
        One row for every finished trial of the run folder.

    Raises:
        ResourceError: There is no CPU for a trial.
        IncompleteError: A trial failed more often than it is tried again.
    """
    rows_url = storage.join(layout.sweep, "trials")
    todo = _missing(trials, rows_url)
    if len(todo) < len(trials):
        log.info("sweep: %d of %d trials are finished", len(trials) - len(todo), len(trials))
    if todo:
        _run_trials(config, recipe, load_data(), todo, layout, rows_url)
        failed = _missing(trials, rows_url)
        if failed:
            raise IncompleteError(
                f"every trial must finish, got {len(failed)} of {len(trials)} that failed: "
                + ", ".join(f"{t.method} {t.keep_fraction:g} seed {t.seed}" for t, _ in failed[:5])
                + ". Read the log and run again; finished trials are kept."
            )
    results = _collect(rows_url)
    _write_results(layout.results, results)
    return results


def _missing(
    trials: Sequence[tuple[Trial, pa.ChunkedArray]], rows_url: str
) -> list[tuple[Trial, pa.ChunkedArray]]:
    done = {name.rsplit("/", 1)[-1] for name in storage.list_files(rows_url, ".json")}
    return [(trial, keys) for trial, keys in trials if f"{trial.id}.json" not in done]


class _ProgressCallback(tune.Callback):
    """Counts trials as they end."""

    def __init__(self, total: int) -> None:
        self._progress = Progress("sweep", total, "trials")

    def on_trial_complete(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        **info: Any,
    ) -> None:
        """Called by Tune in the driver."""
        self._progress.add(1, str(trial.last_result.get("summary", "")))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune in the driver."""
        log.warning("sweep: a trial failed: %s", trial.error_file)


def _run_trials(
    config: SweepConfig,
    recipe: TrainConfig,
    data: StudyData,
    missing: Sequence[tuple[Trial, pa.ChunkedArray]],
    layout: RunLayout,
    rows_url: str,
) -> None:
    ensure_ray()
    position = {key: at for at, key in enumerate(data.train.keys)}
    todo = [(t, np.array([position[k] for k in keys.to_pylist()])) for t, keys in missing]
    cpus = int(ray.cluster_resources().get("CPU", 0.0))
    concurrent = fitting_workers(config.max_concurrent or max(cpus, 1), "concurrent trials")
    # The longest first, so that no long one is left running alone at the end.
    todo.sort(key=lambda pair: -pair[1].size)
    filesystem, path = storage.filesystem(storage.join(layout.sweep, "tune"))
    trainable = tune.with_parameters(
        _run_trial, recipe=recipe, data=data, todo=todo, rows_url=rows_url
    )
    tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space={"position": tune.grid_search(list(range(len(todo))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent, reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"{time.time_ns()}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            callbacks=[_ProgressCallback(len(todo))],
            verbose=0,
        ),
    ).fit()


def _run_trial(
    choice: dict[str, int],
    recipe: TrainConfig,
    data: StudyData,
    todo: list[tuple[Trial, NDArray[np.int64]]],
    rows_url: str,
) -> None:
    """Runs inside a trial's process: trains, tests once, writes the trial's row."""
    torch.set_num_threads(1)
    trial, kept = todo[choice["position"]]
    row = retrain(trial, kept, recipe, data)
    storage.write_bytes(storage.join(rows_url, f"{trial.id}.json"), json.dumps(row).encode())
    summary = f"{trial.method} {trial.keep_fraction:g}: test accuracy {row['test_accuracy']:.4f}"
    tune.report({"test_accuracy": row["test_accuracy"], "summary": summary})


def _collect(rows_url: str) -> pa.Table:
    """Returns every finished trial of the folder, also those of an earlier, smaller grid."""
    urls = sorted(storage.list_files(rows_url, ".json"))
    rows = [json.loads(storage.read_bytes(url)) for url in urls]
    order = ("network", "protocol", "method", "keep_fraction", "seed", "trial")
    return pa.Table.from_pylist(rows).sort_by([(name, "ascending") for name in order])


def _write_results(url: str, results: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(results, sink)
    storage.write_bytes(url, sink.getvalue().to_pybytes())
