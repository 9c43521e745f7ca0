"""The study, stage by stage: prepare, train, score, select, sweep, report.

A stage knows its inputs, its outputs and its completion marker. A stage that is complete is
skipped; one that was complete for other inputs says so and stops, so that nothing is mixed.
"""

import functools
import itertools
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

import raygrad
from raygrad.config import (
    DataConfig,
    SelectConfig,
    StudyConfig,
    from_dict,
    identity,
    to_dict,
)
from raygrad.data import storage
from raygrad.data.export import export_subset
from raygrad.data.index import build_index, read_index, write_index
from raygrad.data.layout import RunLayout
from raygrad.data.manifest import digest, read_json, read_marker, write_json, write_marker
from raygrad.data.shards import DATASET_FILE, write_shards
from raygrad.data.sources import SOURCES, check_source
from raygrad.data.subsets import draw_subset, read_subset
from raygrad.data.urls import expand
from raygrad.engine import parallel
from raygrad.engine import score as score_engine
from raygrad.engine import sweep as sweep_engine
from raygrad.engine import train as train_engine
from raygrad.engine.session import ensure_ray, session
from raygrad.errors import ConfigError
from raygrad.report import write_report
from raygrad.scoring import check_columns
from raygrad.selection import check_method
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.models import check_network
from raygrad.training.study_data import StudyData, load_study_data
from raygrad.training.trials import Trial

log = logging.getLogger("raygrad")


def run(config: StudyConfig) -> pa.Table:
    """Runs the whole study and returns the table of results.

    Run again with the same folder, it skips what is complete and goes on where it stopped.

    Raises:
        ConfigError: The configuration cannot be used, or the folder is of another one.
        RaygradError: A stage could not finish; what it finished is kept.
    """
    check(config)
    bind(config)
    with session():
        prepare(config)
        train(config)
        score(config)
        select(config)
        results = sweep(config)
    report(config)
    return results


def check(config: StudyConfig) -> None:
    """Checks every name in the configuration before anything starts.

    Raises:
        ConfigError: A source, network, score column or method is unknown, or a glob of shards
            matches nothing.
    """
    if config.data.tars:
        expand([*config.data.tars, *config.data.test_tars])
    else:
        check_source(config.data.source)
    check_network(config.train.network)
    check_columns(config.score.columns)
    for method in config.select.methods:
        check_method(method)


def bind(config: StudyConfig) -> None:
    """Writes the configuration into the run folder, after checking it against what is there.

    A run is bound to the data, training and scoring that are complete in it; what has not been
    done yet, and the choice of subsets and retrainings, may change.

    Raises:
        ConfigError: A complete stage was configured otherwise.
    """
    layout = RunLayout(config.run)
    stored = stored_config(config.run)
    if stored is not None:
        network = stored.train.network
        stages = {"data": "prepare", "train": f"train-{network}", "score": f"score-{network}"}
        complete = [name for name in stages if storage.exists(layout.marker(stages[name]))]
        _refuse_changes(config, stored, complete)
    text = json.dumps({**to_dict(config), "raygrad": raygrad.__version__}, indent=1)
    storage.write_bytes(layout.config, text.encode())


def _refuse_changes(config: StudyConfig, stored: StudyConfig, sections: Sequence[str]) -> None:
    for name in sections:
        was, now = identity(getattr(stored, name)), identity(getattr(config, name))
        differ = [f"{name}.{k} was {was[k]!r}, got {now[k]!r}" for k in now if was[k] != now[k]]
        if differ:
            raise ConfigError(
                f"run folder {config.run} must keep its configuration: {'; '.join(differ)}. "
                "Name another --run, or give the values that it has."
            )


def stored_config(run_url: str) -> StudyConfig | None:
    """Returns the configuration of a run folder, or None where there is no run yet."""
    url = RunLayout(run_url).config
    if not storage.exists(url):
        return None
    values = json.loads(storage.read_bytes(url))
    return from_dict({**values, "run": run_url})


def prepare(config: StudyConfig) -> None:
    """Writes the data set's shards and their index; indexes your own shards where some are named.

    Raises:
        ConfigError: The source's files are not there, or shards are named wrongly.
        DataError: More examples are unusable than is accepted.
    """
    layout, data = RunLayout(config.run), config.data

    def do() -> dict[str, Any]:
        ensure_ray()
        if data.tars:
            train_urls: Sequence[str] = [storage.absolute(url) for url in expand(data.tars)]
            test = expand(data.test_tars) if data.test_tars else []
            test_urls: Sequence[str] = [storage.absolute(url) for url in test]
            facts: dict[str, Any] = {"channels": data.channels}
        else:
            train_urls, test_urls, facts = _write_source(data, data.out or layout.shards)
        index = build_index(
            train_urls,
            test_urls,
            val_fraction=data.val_fraction,
            split_seed=data.split_seed,
            labels=data.labels if data.tars else "cls",
            classes=facts.get("classes", ()),
            max_reject_share=data.max_reject_share,
            strict=data.strict,
            map_fn=parallel.ray_map,
        )
        write_index(layout.data, index)
        facts |= {"classes": list(index.classes), "num_classes": len(index.classes)}
        write_json(storage.join(layout.data, DATASET_FILE), facts)
        counts = {"num_examples": index.examples.num_rows, "num_rejects": index.rejects.num_rows}
        log.info("prepare: %(num_examples)d examples, %(num_rejects)d rejects", counts)
        return {"digest": index.digest, **counts}

    _stage(layout, "prepare", digest(identity(data)), do)


def write_source(data: DataConfig, out: str) -> list[str]:
    """Writes a source's shards outside any run; returns their URLs."""
    ensure_ray()
    train_urls, test_urls, _ = _write_source(data, out)
    return [*train_urls, *test_urls]


def export(run: str, subset_url: str, out: str, shard_bytes: int) -> list[str]:
    """Writes a subset of a run as new WebDataset shards; returns their URLs."""
    ensure_ray()
    subset, _ = read_subset(subset_url)
    keys, weights = subset["key"].to_pylist(), subset["weight"].to_pylist()
    return export_subset(
        read_index(RunLayout(run).data),
        keys,
        storage.absolute(out),
        shard_bytes=shard_bytes,
        weights=None if set(weights) == {1.0} else dict(zip(keys, weights, strict=True)),
        map_fn=parallel.ray_map,
    )


def _write_source(data: DataConfig, out: str) -> tuple[Sequence[str], Sequence[str], dict]:
    check_source(data.source)
    out = storage.absolute(out)
    folder = storage.absolute(data.data_dir) if data.data_dir else None
    written = write_shards(
        SOURCES[data.source](folder, download=data.download),
        data.source,
        out,
        shard_bytes=data.shard_bytes,
        seed=data.split_seed,
        map_fn=parallel.ray_map,
    )
    facts = read_json(storage.join(out, DATASET_FILE))
    return written.train_urls, written.test_urls, facts


def train(config: StudyConfig) -> dict[str, Any]:
    """Trains the network on the whole training split; returns its metrics."""
    layout, network = RunLayout(config.run), config.train.network
    inputs = digest({"data": _facts(layout, "prepare")["digest"], **identity(config.train)})

    def do() -> dict[str, Any]:
        ensure_ray()
        metrics = train_engine.train(
            config.train,
            inputs,
            _study_data(layout),
            storage.join(layout.train(network), "ray"),
            layout.checkpoint(network),
            layout.metrics(network),
        )
        return {"digest": load_checkpoint(layout.checkpoint(network)).digest(), **metrics}

    return _stage(layout, f"train-{network}", inputs, do)


def score(config: StudyConfig) -> dict[str, Any]:
    """Scores every training example with the trained network; returns the table's facts."""
    layout, network = RunLayout(config.run), config.train.network
    check_columns(config.score.columns)
    provenance = {
        "checkpoint": _facts(layout, f"train-{network}")["digest"],
        "data": _facts(layout, "prepare")["digest"],
        "columns": ",".join(config.score.columns),
        "dtype": "float32",
    }

    def do() -> dict[str, Any]:
        ensure_ray()
        task = score_engine.ScoreTask(
            data_url=layout.data,
            checkpoint_url=layout.checkpoint(network),
            out_url=layout.scores(network),
            channels=read_json(storage.join(layout.data, DATASET_FILE))["channels"],
            columns=config.score.columns,
            batch_size=config.score.batch_size,
            provenance=provenance,
            attempts_url=storage.join(layout.scores(network), "attempts", str(time.time_ns())),
        )
        return {**score_engine.score(config.score, task), "digest": digest(provenance)}

    return _stage(layout, f"score-{network}", digest(provenance), do)


def select(config: StudyConfig) -> None:
    """Draws a subset for every method, keep_fraction and seed that has none yet."""
    layout, network = RunLayout(config.run), config.train.network
    origin = {
        "scores": _facts(layout, f"score-{network}")["digest"],
        "score_network": network,
        "score_column": config.select.score_column,
        "class_balanced": config.select.class_balanced,
        "missing": config.select.missing,
    }
    cells = grid(config.select)
    missing = [cell for cell in cells if not _is_drawn(layout, cell, origin)]
    balanced = config.select.class_balanced
    for cell in missing:
        options: dict[str, Any] = {}
        if cell[0] == "non_extreme_max_gradient":
            options["drop_fraction"] = config.select.drop_fraction
        draw_subset(
            layout.scores(network),
            layout.subset(*cell),
            *cell,
            origin,
            score_column=config.select.score_column,
            class_balanced=False if balanced == "no" else balanced,
            missing=config.select.missing,
            **options,
        )
    log.info("select: %d subsets drawn, %d were there", len(missing), len(cells) - len(missing))


def sweep(config: StudyConfig) -> pa.Table:
    """Retrains the network on every subset; returns the table of results."""
    layout = RunLayout(config.run)
    data_digest = _facts(layout, "prepare")["digest"]
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
        config.sweep, config.train, trials, layout, functools.partial(_study_data, layout)
    )


def report(config: StudyConfig) -> str:
    """Writes figures and page from the tables of the run; returns the page's URL."""
    return write_report([config.run])


def grid(config: SelectConfig) -> list[tuple[str, float, int]]:
    """Returns method, keep_fraction and seed of every subset that the configuration asks for.

    Keeping everything is the same subset by any method: it is drawn once a seed, as `random`.
    non_extreme_max_gradient has no subset larger than what it does not drop; such fractions are
    left out, and it is said.
    """
    cells = []
    for method, keep_fraction in itertools.product(config.methods, config.keep_fractions):
        if keep_fraction == 1.0:
            continue
        if method == "non_extreme_max_gradient" and keep_fraction > 1 - config.drop_fraction:
            log.warning("select: %s cannot keep %g; left out", method, keep_fraction)
            continue
        cells += [(method, keep_fraction, seed) for seed in config.seeds]
    if 1.0 in config.keep_fractions:
        cells += [("random", 1.0, seed) for seed in config.seeds]
    return cells


def _is_drawn(layout: RunLayout, cell: tuple[str, float, int], origin: dict[str, Any]) -> bool:
    url = layout.subset(*cell)
    if not storage.exists(url):
        return False
    _, found = read_subset(url)
    differ = [f"{k} {found.get(k)!r}, now {v!r}" for k, v in origin.items() if found.get(k) != v]
    if differ:
        raise ConfigError(
            f"subset {url} must come from this run's scores, got one drawn from "
            f"{'; '.join(differ)}. Name another --run, or remove the file to draw it again."
        )
    return True


@functools.lru_cache(maxsize=1)
def _study_data(layout: RunLayout) -> StudyData:
    facts = read_json(storage.join(layout.data, DATASET_FILE))
    return load_study_data(read_index(layout.data), facts["num_classes"], facts["channels"])


def _stage(
    layout: RunLayout, name: str, inputs: str, do: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Does a stage unless it is complete, marks it complete, and returns its facts."""
    url = layout.marker(name)
    marker = read_marker(url)
    if marker is not None and marker["inputs_digest"] != inputs:
        raise ConfigError(
            f"stage {name} must have the inputs it was completed with, got others in "
            f"{layout.url}. Name another --run, or remove {url} to do it again."
        )
    if marker is not None:
        log.info("%s: complete, skipped", name)
        return marker
    log.info("%s: starts", name)
    start_s = time.monotonic()
    facts = do()
    write_marker(url, inputs, **facts)
    log.info("%s: complete in %.1f s", name, time.monotonic() - start_s)
    return facts


def _facts(layout: RunLayout, stage: str) -> dict[str, Any]:
    """Returns what a stage that must be complete left in its marker."""
    marker = read_marker(layout.marker(stage))
    if marker is None:
        command = stage.split("-")[0]
        raise ConfigError(
            f"stage {stage} must be complete, got none in {layout.url}. "
            f"Do it first: raygrad {command} --run {layout.url}."
        )
    return marker
