"""A sweep's rows on disk: one file a trial, written as it ends, and one table of them all."""

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raygrad.errors import DataError
from raygrad.storage import files
from raygrad.storage.damage import whole_parquet
from raygrad.storage.manifest import read_object

log = logging.getLogger("raygrad")

RESULT_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("network", pa.string()),
        ("score_network", pa.string()),
        ("score_column", pa.string()),
        ("score_run", pa.string()),
        ("method", pa.string()),
        ("keep_fraction", pa.float64()),
        ("budget", pa.int64()),
        ("seed", pa.int64()),
        ("score_seed", pa.int64()),
        ("protocol", pa.string()),
        ("subset_digest", pa.string()),
        ("config_digest", pa.string()),
        ("subset_seed", pa.int64()),
        ("init_seed", pa.int64()),
        ("order_seed", pa.int64()),
        ("test_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("val_accuracy", pa.float64()),
        ("val_loss", pa.float64()),
        ("best_epoch", pa.int64()),
        ("num_validations", pa.int64()),
        ("still_improving", pa.bool_()),
        ("best_at_first", pa.bool_()),
        ("epochs", pa.int64()),
        ("steps", pa.int64()),
        ("examples_seen", pa.int64()),
        ("train_time_s", pa.float64()),
        ("loop_time_s", pa.float64()),
        ("num_workers", pa.int64()),
        ("micro_batch", pa.int64()),
        ("device", pa.string()),
        ("device_name", pa.string()),
        ("numerics", pa.string()),
        ("torch", pa.string()),
        ("ended_early", pa.bool_()),
    ]
)
"""The columns of `sweep/results.parquet`. A trial that was ended early, because others did clearly
better, has no test accuracy. `micro_batch`: examples of a pass of the first worker, 0 for its whole
share of a batch; batch normalisation goes by it."""

FAILED_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("network", pa.string()),
        ("method", pa.string()),
        ("keep_fraction", pa.float64()),
        ("seed", pa.int64()),
        ("score_seed", pa.int64()),
        ("protocol", pa.string()),
        ("attempts", pa.int64()),
        ("reason", pa.string()),
    ]
)
"""The columns of `sweep/failed.parquet`: trials that failed more often than they are retried."""

ASIDE = "aside"
"""The folder in a sweep's, of rows that stand beside no others: of other data, another recipe or
another draw than was asked for last. They are taken back when they are asked for again."""

_AGAIN = "sweep again, which runs its trial alone"
_ORDER = ("network", "protocol", "method", "keep_fraction", "seed", "trial")


class ResultRows:
    """The finished trials of a sweep's folder.

    A trial's own file is the truth: it is written by the trial's process, whole or not at all, so
    that neither a lost trial nor a lost driver loses or repeats one. The table is made of them.

    Args:
        folder: The sweep's folder.
        table_url: The table of results.
    """

    def __init__(self, folder: str, table_url: str) -> None:
        self._folder, self._table_url = files.join(folder, "trials"), table_url
        self._aside = files.join(folder, ASIDE)
        self._rows = self._read()

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows that are known, by trial."""
        return self._rows

    @property
    def aside(self) -> set[str]:
        """The trials that are set aside: `take_back` takes those that are asked for again."""
        return set(_trials_in(self._aside))

    @staticmethod
    def url(folder: str, trial: str) -> str:
        """Returns where a trial's own row stands."""
        return files.join(folder, "trials", f"{trial}.json")

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row that the trial's file holds, and writes the table with it."""
        self._rows[row["trial"]] = row
        self.write()

    def tell(self, column: str, values: Mapping[str, Any]) -> None:
        """Gives rows of before a column was written what is now known of it, by trial.

        Args:
            column: The column.
            values: What it holds, by trial; what a row says already stays.
        """
        for trial, value in values.items():
            row = self._rows.get(trial)
            if row is not None and row.get(column) is None:
                row[column] = value

    def set_aside(self, trials: Collection[str]) -> None:
        """Moves the files of trials to a folder of which no table is made; nothing is lost.

        Args:
            trials: Trials that have rows.
        """
        self._move(trials, self._folder, self._aside)
        self._without(trials)

    def remove(self, trials: Collection[str]) -> None:
        """Removes trials with their files, for good; the table is written without them.

        Args:
            trials: Trials that have rows.
        """
        for trial in trials:
            files.remove(files.join(self._folder, f"{trial}.json"))
        self._without(trials)

    def remove_networks(self, networks: Collection[str] | None) -> None:
        """Removes the trials of networks for good, and what was set aside of them.

        Args:
            networks: The networks; None for all.
        """
        for trial in self.aside:
            url = files.join(self._aside, f"{trial}.json")
            if networks is None or json.loads(files.read_bytes(url))["network"] in networks:
                files.remove(url)
        rows = self._rows.items()
        self.remove([t for t, row in rows if networks is None or row["network"] in networks])

    def _without(self, trials: Collection[str]) -> None:
        for trial in trials:
            del self._rows[trial]
        if trials:
            self.write()

    def take_back(self, trials: Collection[str]) -> None:
        """Takes back what was set aside.

        Args:
            trials: Any trials; those that were not set aside stay as they are.
        """
        there = sorted(self.aside & set(trials))
        if there:
            self._move(there, self._aside, self._folder)
            self._rows = self._read()
            self.write()

    def _move(self, trials: Iterable[str], here: str, there: str) -> None:
        for trial in trials:
            row = files.read_bytes(files.join(here, f"{trial}.json"))
            files.write_bytes(files.join(there, f"{trial}.json"), row)
            files.remove(files.join(here, f"{trial}.json"))

    def write(self) -> pa.Table:
        """Writes the table of results, whole or not at all, and returns it."""
        rows = list(self._rows.values())
        table = _table(rows, RESULT_SCHEMA).sort_by([(name, "ascending") for name in _ORDER])
        _write_table(self._table_url, table)
        return table

    def _read(self) -> dict[str, dict[str, Any]]:
        """Reads what the table holds from it, and only later trials from their own files."""
        known = self._tabled()
        rows = {}
        for trial in _trials_in(self._folder):
            url = files.join(self._folder, f"{trial}.json")
            rows[trial] = known.get(trial) or read_object(url, _AGAIN)
        return rows

    def _tabled(self) -> dict[str, dict[str, Any]]:
        """Returns the rows of the table, none where it is not there, older or damaged."""
        if not files.exists(self._table_url):
            return {}
        try:
            with whole_parquet(self._table_url):
                stored = pq.read_table(pa.BufferReader(files.read_bytes(self._table_url)))
        except DataError:
            log.warning(
                "sweep: %s is damaged: its rows are read from their own files", self._table_url
            )
            return {}
        if not stored.schema.equals(RESULT_SCHEMA):
            return {}
        return {row["trial"]: row for row in stored.to_pylist()}


def _trials_in(folder: str) -> list[str]:
    """Returns the trials that have a file in a folder."""
    listed = files.list_files(folder, ".json")
    return [url.rsplit("/", 1)[-1].removesuffix(".json") for url in listed]


def write_row(folder: str, row: dict[str, Any]) -> None:
    """Writes a trial's own row, whole or not at all."""
    files.write_bytes(ResultRows.url(folder, row["trial"]), json.dumps(row).encode())


def read_row(folder: str, trial: str) -> dict[str, Any] | None:
    """Returns a trial's own row, or None where it is not finished.

    Raises:
        DataError: The file is damaged.
    """
    url = ResultRows.url(folder, trial)
    return read_object(url, _AGAIN) if files.exists(url) else None


def write_failed(folder: str, rows: Iterable[dict[str, Any]]) -> str:
    """Writes the list of failed trials, empty where none failed; returns its URL."""
    url = files.join(folder, "failed.parquet")
    _write_table(url, _table(list(rows), FAILED_SCHEMA))
    return url


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def _write_table(url: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    files.write_bytes(url, sink.getvalue().to_pybytes())
