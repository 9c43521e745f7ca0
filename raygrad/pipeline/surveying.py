"""What a run folder holds and what is at work on it: read from its journal, markers and tables."""

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raygrad.config import StudyConfig
from raygrad.pipeline.replicates import replicate_name
from raygrad.pipeline.selecting import grid
from raygrad.pipeline.settling import of_these_inputs
from raygrad.runs.journal import BEAT_S, Entry, read_journal, wall_s
from raygrad.runs.layout import RunLayout
from raygrad.runs.part_list import shard_of
from raygrad.runs.result_rows import ResultRows
from raygrad.runs.score_table import MANIFEST
from raygrad.storage import files
from raygrad.storage.manifest import read_json, read_marker

State = Literal["complete", "running", "stopped", "missing"]

_BEATS = 3
"""An entry that has not been written again for so many beats is of a process that was killed."""


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is."""

    stage: str
    """Its name, with the network where there is one."""
    state: State
    """complete; running: a process is at work on it; stopped: begun, and nobody is; missing."""
    note: str
    """What it came to, or how far it is."""
    seconds: float
    """How long it was worked on, over all starts; 0 where the journal knows of none."""
    starts: int
    """How often it was started."""
    device_hours: float
    """Hours of CPUs or GPUs that its work took, as far as its tables say; 0 where they do not."""

    def line(self, price_per_hour: float = 0.0) -> str:
        """Returns it as a line of text, with the cost where there is a price."""
        parts = [f"{self.stage:14} {self.state:9} {self.note}".rstrip()]
        if self.starts:
            parts.append(f"{self.seconds:,.0f} s in {self.starts} start{'s' * (self.starts != 1)}")
        if self.device_hours:
            parts.append(f"{self.device_hours:.3g} device-hours")
            if price_per_hour:
                parts.append(f"cost {self.device_hours * price_per_hour:.2f}")
        return "; ".join(parts)


def status(config: StudyConfig) -> list[StageStatus]:
    """Returns how far each stage of a study is, in order; reads only.

    Folders of before there was a journal have no times.

    Raises:
        DataError: A file of the journal is no entry.
    """
    layout, entries = RunLayout(config.run), read_journal(RunLayout(config.run).journal)
    network = config.train.network
    written = files.exists(files.join(layout.report, "index.html"))
    report = StageStatus("report", "complete" if written else "missing", "", 0, 0, 0)
    audited = _audited(layout, entries)
    if audited and not _is_begun(layout, entries):
        return [_marked(layout, "prepare", entries), *audited, report]
    others = [seed for seed in config.select.score_seeds if seed != config.train.seed]
    found = [_marked(layout, "prepare", entries)]
    if not config.score.is_own:
        names = [network, *(replicate_name(network, seed) for seed in others)]
        found += [_marked(layout, f"train-{name}", entries) for name in names]
        found += [_marked(layout, f"score-{name}", entries) for name in names]
    else:
        found.append(_marked(layout, f"score-{config.scored_network}", entries))
    if config.score.is_own and not files.exists(layout.marker(f"train-{network}")):
        return [*found, *audited]  # scoring a network of one's own ends here
    return [*found, *audited, _sweep(config, layout, entries), report]


def _audited(layout: RunLayout, entries: Sequence[Entry]) -> list[StageStatus]:
    """Returns how far the audit is, of a run that has or had one: no study asks for it."""
    facts = read_marker(layout.marker("audit"))
    if facts is None and not any(entry.stage == "audit" for entry in entries):
        return []
    note = ""
    if facts is not None:
        note = (
            f"{facts['num_suspects']:,} suspects, {facts['num_repeated']:,} repeats, "
            f"{facts['num_odd']:,} outliers; {facts['num_kept']:,} kept, "
            f"{facts['num_dropped']:,} dropped"
        )
    return [_timed("audit", facts is not None, note, 0.0, entries)]


def _is_begun(layout: RunLayout, entries: Sequence[Entry]) -> bool:
    """Tells whether a run has or had more of a study than its data."""
    stages = {entry.stage.split("-")[0] for entry in entries}
    stages |= {name.split("-")[0] for name in layout.marked()}
    return bool(stages & {"train", "score", "select", "sweep"})


def _marked(layout: RunLayout, stage: str, entries: Sequence[Entry]) -> StageStatus:
    facts = read_marker(layout.marker(stage))
    kind, _, network = stage.partition("-")
    note, hours = "", 0.0
    if facts is not None:
        note, hours = _facts(kind, facts)
    elif kind == "score":
        listed = files.list_files(layout.scores(network), ".parquet")
        parts = sum(shard_of(url.rsplit("/", 1)[-1]) is not None for url in listed)
        note = f"{parts} parts so far" if parts else ""
    if kind == "score" and facts is not None:
        manifest = files.join(layout.scores(network), MANIFEST)
        if files.exists(manifest):
            hours = float(read_json(manifest).get("score_time_s", 0.0)) / 3600
    return _timed(stage, facts is not None, note, hours, entries)


def _facts(kind: str, facts: dict[str, Any]) -> tuple[str, float]:
    """Returns what a stage's marker says of it, and its device-hours."""
    if kind == "train" and "test_accuracy" in facts:
        note = f"test accuracy {facts['test_accuracy']:.4f} after {facts['epochs']} epochs"
        return note, facts["train_time_s"] * facts["world_size"] / 3600
    rejects = facts.get("num_rejects", facts.get("rejected", 0))
    return f"{facts.get('num_examples', 0):,} examples, {rejects:,} rejects", 0.0


def _sweep(config: StudyConfig, layout: RunLayout, entries: Sequence[Entry]) -> StageStatus:
    networks = config.sweep.networks or (config.train.network,)
    asked = {
        (score_seed, network, protocol, *cell)
        for score_seed in config.select.score_seeds or (None,)
        for network in networks
        for protocol in config.sweep.protocols
        for cell in grid(config.select)
    }
    rows = ResultRows(layout.sweep, layout.results).rows.values()
    current = of_these_inputs(config, rows)
    names = ("network", "protocol", "method", "keep_fraction", "seed")
    # Draws that need no scores, and studies with one scoring network, have rows of no score_seed.
    seeded = bool(config.select.score_seeds)
    there = {
        (seed, *(row[name] for name in names))
        for row in current
        for seed in {row.get("score_seed") if seeded else None}
    }
    done = {cell for cell in asked if cell in there or (None, *cell[1:]) in there}
    hours = sum((r["train_time_s"] or 0.0) * (r["num_workers"] or 1) for r in rows) / 3600
    note = f"{len(done)} of {len(asked)} retrainings"
    if len(rows) > len(done):
        note += f", and {len(rows) - len(done)} of other configurations"
    return _timed("sweep", bool(asked) and done == asked, note, hours, entries)


def _timed(
    stage: str, complete: bool, note: str, hours: float, entries: Sequence[Entry]
) -> StageStatus:
    """Returns the status of a stage with what the journal knows of it."""
    own = [entry for entry in entries if entry.stage == stage]
    running = [entry for entry in own if _is_alive(entry)]
    if running:
        since = datetime.datetime.fromtimestamp(running[-1].started_s, datetime.UTC)
        note = f"since {since:%Y-%m-%d %H:%M:%S} UTC" + (f", {note}" if note else "")
        state: State = "running"
    elif complete:
        state = "complete"
    else:
        state = "stopped" if own else "missing"
        if own:
            ended = "killed" if own[-1].outcome == "running" else own[-1].outcome
            note = f"{ended}" + (f", {note}" if note else "")
    return StageStatus(stage, state, note, wall_s(own), len(own), hours)


def _is_alive(entry: Entry) -> bool:
    last_s = entry.started_s + entry.seconds
    return entry.outcome == "running" and time.time() - last_s < _BEATS * BEAT_S
