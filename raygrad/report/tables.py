"""The tables of one run, read as far as they are there: a report leaves out what is missing."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from raygrad.data.index import Index, read_index
from raygrad.errors import ConfigError, DataError
from raygrad.report.mixed import without_mixed
from raygrad.runs.journal import Entry, read_journal
from raygrad.runs.score_table import MANIFEST, read_score_table
from raygrad.storage.files import exists, filesystem, join, list_files, read_bytes

# What of a score table is not a score.
NOT_SCORES = frozenset(
    {"key", "key_hash", "shard", "label", "prediction", "correct", "epoch", "split", "index"}
)
_DYNAMICS = "-dynamics"  # what training watched of a network is a score table beside its own
DEFAULT_SCORE = "grad_l2_last_layer_weights"


@dataclass(frozen=True)
class Scores:
    """The scores of one network, one row an example.

    Attributes:
        network: The network whose gradients were taken.
        table: key, shard, label, one float column a score, and prediction and correct where known.
    """

    network: str
    table: pa.Table

    @property
    def columns(self) -> list[str]:
        """Names of the score columns, in the table's order."""
        return number_columns(self.table)

    def values(self, column: str) -> np.ndarray:
        """One score column, float64 ``[N]``; what is null in the table is NaN here."""
        return np.asarray(
            pc.fill_null(self.table[column].cast(pa.float64()), float("nan")).to_numpy()
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each example, int64 ``[N]``."""
        return np.asarray(self.table["label"].cast(pa.int64()).to_numpy())

    @cached_property
    def predictions(self) -> np.ndarray | None:
        """What the network takes each example for, int64 ``[N]``, -1 where not known.

        None where the table does not say.
        """
        if "prediction" not in self.table.column_names:
            return None
        known = pc.fill_null(self.table["prediction"].cast(pa.int64()), -1)
        return np.asarray(known.to_numpy())

    @cached_property
    def contradicted(self) -> np.ndarray:
        """Whether the network is known to take an example for another class, bool ``[N]``."""
        if self.predictions is None:
            return np.zeros(len(self.labels), dtype=bool)
        return (self.predictions >= 0) & (self.predictions != self.labels)


def positions_of(keys: pa.ChunkedArray, table: pa.Table) -> pa.Array:
    """Where each key stands in another table, int64 ``[N]``; null where it does not.

    Args:
        keys: Keys, any number.
        table: A table with a column ``key`` of unique keys.
    """
    # Tables of one run mostly hold the same keys in the same order; to see that is far cheaper, in
    # time and in memory, than to look each key up.
    if keys.equals(table["key"]):
        return pa.array(np.arange(len(keys)))
    at = pc.index_in(keys, value_set=table["key"].combine_chunks())
    return at.combine_chunks() if isinstance(at, pa.ChunkedArray) else at


def matched(values: pa.ChunkedArray, at: pa.Array) -> np.ndarray:
    """A numeric column at the positions of :func:`positions_of`, float64, NaN where null."""
    taken = values.cast(pa.float64()).combine_chunks().take(at)
    return np.asarray(pc.fill_null(taken, float("nan")).to_numpy(zero_copy_only=False))


def number_columns(table: pa.Table) -> list[str]:
    """Names of a table's numeric columns that are scores, in the table's order."""
    return [
        f.name
        for f in table.schema
        if f.name not in NOT_SCORES
        and (pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
    ]


@dataclass(frozen=True)
class Run:
    """One run folder's tables. What is not there is None or empty, and ``notes`` says why.

    Attributes:
        url: The run folder.
        name: A short name for people: the data set's, or the folder's.
        config: ``config.json``, or an empty dict.
        dataset: ``data/dataset.json``, or an empty dict.
        metrics: ``train/<network>/metrics.json`` by network.
        scores: Score tables by network.
        probe: ``train/<network>/probe.parquet`` by network.
        bound: ``train/<network>/bound.parquet`` by network.
        dynamics: ``train/<network>/dynamics.parquet`` by network.
        results: ``sweep/results.parquet``.
        rejects: All reject tables in one, with a ``stage`` column.
        manifests: ``scores/<network>/_manifest.json`` by network.
        journal: When its stages were started and what ended them; empty for older runs.
        notes: What could not be read, in sentences.
    """

    url: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    probe: Mapping[str, pa.Table] = field(default_factory=dict)
    bound: Mapping[str, pa.Table] = field(default_factory=dict)
    dynamics: Mapping[str, pa.Table] = field(default_factory=dict)
    results: pa.Table | None = None
    rejects: pa.Table | None = None
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    journal: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()

    def renamed(self, name: str) -> "Run":
        """The same run under another name."""
        return replace(self, name=name)

    @cached_property
    def index(self) -> Index | None:
        """The index, read when it is first asked for; None where it is not whole."""
        data_url = join(self.url, "data")
        if not all(exists(join(data_url, f"{n}.parquet")) for n in ("index", "shards", "rejects")):
            return None
        return read_index(data_url)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes by label, from the data set's facts or else the index."""
        listed = self.dataset.get("classes")
        return listed or (self.index.classes if self.index is not None else ())

    @property
    def num_classes(self) -> int:
        """Number of classes, from their names or the labels that occur."""
        seen = [int(s.labels.max()) + 1 for s in self.scores.values() if len(s.labels)]
        return max([len(self.classes), *seen], default=0)

    def class_name(self, label: int) -> str:
        """The class's name, or its number where the data set has no names."""
        return str(self.classes[label]) if 0 <= label < len(self.classes) else str(label)

    @property
    def score_column(self) -> str | None:
        """The column that the report orders examples by.

        The one that the sweep drew its subsets from; else the paper's, the l2 norm over the last
        layer's weights; else the first gradient norm; else the first score.
        """
        available = [c for s in self.scores.values() for c in s.columns]
        gradients = [c for c in available if c.startswith("grad_")]
        wanted = [*self._used_by_sweep("score_column"), DEFAULT_SCORE, *gradients, *available]
        return next((c for c in wanted if c in available), None)

    @property
    def main_network(self) -> str | None:
        """The network whose scores come first: the one the sweep used most, else the first."""
        return next(
            (n for n in [*self._used_by_sweep("score_network"), *self.scores] if n in self.scores),
            None,
        )

    def _used_by_sweep(self, column: str) -> list[str]:
        """Values of a column of the results, the most frequent first."""
        if self.results is None or column not in self.results.column_names:
            return []
        counts = pc.value_counts(self.results[column].drop_null()).to_pylist()
        return [
            str(r["values"]) for r in sorted(counts, key=lambda r: (-r["counts"], str(r["values"])))
        ]

    def num_test(self) -> dict[str, int]:
        """Test examples by network; the accuracy of a network is a multiple of its inverse."""
        known = {n: int(m["num_test"]) for n, m in self.metrics.items() if m.get("num_test")}
        counts = self.dataset.get("counts")
        total = counts.get("test") if isinstance(counts, dict) else None
        if isinstance(total, int) and self.results is not None and total > 0:
            for name in set(self.results["network"].to_pylist()):
                known.setdefault(name, total)
        return known


def _json(url: str, notes: list[str]) -> dict[str, Any]:
    if not exists(url):
        return {}
    try:
        value = json.loads(read_bytes(url))
    except ValueError as error:
        notes.append(f"{url} is no JSON ({error}), so the report goes on without it.")
        return {}
    return value if isinstance(value, dict) else {}


def _parquet(url: str, notes: list[str]) -> pa.Table | None:
    if not exists(url):
        return None
    content = read_bytes(url)
    try:
        return pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:  # damage behind the footer is an OSError
        notes.append(f"{url} is no Parquet ({error}), so the report goes on without it.")
        return None


def _folders(url: str, marker: str) -> list[str]:
    """Names of the folders right inside ``url`` that hold a file whose name starts so."""
    system, path = filesystem(url)
    inside = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    names = sorted(i.base_name for i in inside if i.type == fs.FileType.Directory)
    return [
        n
        for n in names
        if any(f.rpartition("/")[2].startswith(marker) for f in list_files(join(url, n)))
    ]


def _dataset(url: str, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    placed = config.get("data", {}).get("out") if isinstance(config.get("data"), dict) else None
    for folder in (join(url, "data"), join(url, "data", "shards"), placed):
        facts = _json(join(folder, "dataset.json"), notes) if folder else {}
        if facts:
            return facts
    return {}


def _run_name(url: str, config: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """The data set's own name; of class folders the folder's, else the run folder's."""
    name = dataset.get("name") or dataset.get("source")
    data = config.get("data")
    if name == "image-folder" and isinstance(data, dict):
        places = [data.get("data_dir"), *(data.get("tars") or [])]
        folder = next((str(place) for place in places if place), "")
        name = folder.rstrip("/").rpartition("/")[2] or name
    return str(name or url.rstrip("/").rpartition("/")[2])


def _rejects(url: str, trained: list[str], scored: list[str], notes: list[str]) -> pa.Table | None:
    tables = []
    places = {"prepare": join(url, "data", "rejects.parquet")}
    places |= {f"train {n}": join(url, "train", n, "rejects.parquet") for n in trained}
    places |= {f"score {n}": join(url, "scores", n, "rejects.parquet") for n in scored}
    places["sweep"] = join(url, "sweep", "rejects.parquet")
    for stage, place in places.items():
        table = _parquet(place, notes)
        if table is None or table.num_rows == 0:
            continue
        names = [n for n in ("shard", "key", "reason") if n in table.column_names]
        table = pa.table({n: table[n].cast(pa.string()) for n in names})
        tables.append(table.append_column("stage", pa.array([stage] * table.num_rows)))
    return pa.concat_tables(tables, promote_options="default") if tables else None


def _scores(url: str, network: str, notes: list[str]) -> Scores | None:
    folder = join(url, "scores", network)
    try:
        table = read_score_table(folder)
    except (ConfigError, DataError, pa.ArrowInvalid) as error:
        notes.append(f"The scores of {network} could not be read: {error}")
        return None
    table = table.select([n for n in table.column_names if n != "key_hash"])
    keys = table["key"].cast(pa.string())
    table = table.set_column(table.column_names.index("key"), "key", keys)
    if not table.num_rows:
        return None
    table = _with_numbers(table, network, notes)
    return Scores(network, table) if number_columns(table) else None


def _with_numbers(table: pa.Table, network: str, notes: list[str]) -> pa.Table:
    """Returns a score table without the columns in which no score is a number."""
    kept = list(table.column_names)
    for name in number_columns(table):
        finite = pc.sum(pc.is_finite(table[name].cast(pa.float64()))).as_py() or 0
        nans = pc.sum(pc.is_nan(table[name].cast(pa.float64()))).as_py() or 0
        if not finite:
            kept.remove(name)
            notes.append(f"No {name} of {network} is a number, so the report goes on without it.")
        elif nans:
            notes.append(
                f"{nans:,} of {table.num_rows:,} {name} of {network} are NaN and are left out."
            )
    return table.select(kept)


def _journal(url: str, notes: list[str]) -> tuple[Entry, ...]:
    try:
        return tuple(read_journal(url))
    except DataError as error:
        notes.append(f"The journal could not be read: {error}")
        return ()


def _is_dynamics(folder: str, others: Collection[str]) -> bool:
    """Whether a folder of scores holds a network's training dynamics, and is no network itself."""
    return folder.endswith(_DYNAMICS) and folder.removesuffix(_DYNAMICS) in others


def read_run(url: str) -> Run:
    """Reads the tables of a run folder.

    Args:
        url: The run folder, local or ``s3://``.

    Raises:
        ConfigError: The folder holds nothing of a run.
    """
    notes: list[str] = []
    train, scored = join(url, "train"), join(url, "scores")
    networks = _folders(train, "metrics.json")
    folders = _folders(scored, "part-")
    score_networks = [n for n in folders if not _is_dynamics(n, {*folders, *networks})]
    results = _parquet(join(url, "sweep", "results.parquet"), notes)
    if results is not None:
        results, mixed = without_mixed(results)
        notes += mixed
    config = _json(join(url, "config.json"), notes)
    if not (config or networks or score_networks or results is not None):
        raise ConfigError(
            f"A report needs a run folder with results in it, got {url!r}. "
            "Give the folder that `raygrad run` or its stages wrote."
        )
    tables = {
        kind: {
            n: t
            for n in _folders(train, f"{kind}.parquet")
            if (t := _parquet(join(train, n, f"{kind}.parquet"), notes)) is not None
        }
        for kind in ("probe", "bound", "dynamics")
    }
    for name in set(folders) - set(score_networks):
        of = name.removesuffix(_DYNAMICS)
        if of not in tables["dynamics"] and (found := _scores(url, name, notes)) is not None:
            tables["dynamics"][of] = found.table
    dataset = _dataset(url, config, notes)
    scores = {n: s for n in score_networks if (s := _scores(url, n, notes)) is not None}
    return Run(
        url=url,
        name=_run_name(url, config, dataset),
        config=config,
        dataset=dataset,
        metrics={n: _json(join(train, n, "metrics.json"), notes) for n in networks},
        scores=scores,
        results=results if results is not None and results.num_rows else None,
        rejects=_rejects(url, networks, score_networks, notes),
        manifests={n: _json(join(scored, n, MANIFEST), notes) for n in score_networks},
        journal=_journal(join(url, "journal"), notes),
        notes=tuple(notes),
        **tables,
    )
