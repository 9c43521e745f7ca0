"""The rows of the index: classes, splits, repeated keys, and the rejects that remain."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.data.shard_scan import LabelRule, ShardScan
from raygrad.errors import DataError
from raygrad.selection.keyed_random import key_hashes

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("key_hash", pa.uint64()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("label", pa.int64()),
        ("split", pa.string()),
    ]
)
REJECT_SCHEMA = pa.schema([("shard", pa.string()), ("key", pa.string()), ("reason", pa.string())])
MAX_CLASSES = 2**20
"""Labels are counted from 0, so a number beyond this is no class but something else."""


class Rejects:
    """Collects what cannot be used, and knows when it is too much."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._rows: list[dict[str, str]] = []
        self._num_missing = 0

    def add(self, shard: str, key: str, reason: str) -> None:
        """Adds an example, or with an empty key a shard.

        Raises:
            DataError: Nothing may be rejected.
        """
        if self._strict:
            where = f"{key!r} in {shard}" if key else f"shard {shard}"
            raise DataError(f"every example must be usable, got {where}: {reason}.")
        self._rows.append({"shard": shard, "key": key, "reason": reason})

    def add_scan(self, name: str, scan: ShardScan) -> None:
        """Adds what the scan of a shard found, its damage first: it explains the others."""
        if scan.damage:
            self.add(name, "", scan.damage)
        for key, reason in scan.rejects:
            self.add(name, key, reason)

    def add_missing(
        self,
        scans: Mapping[str, ShardScan],
        counts: Mapping[str, int],
        expected: Mapping[str, int | None],
    ) -> None:
        """Counts what shards lack: against a known number, or for damaged ones a likely one."""
        usual = max(counts.values(), default=0)
        keyed = Counter(row["shard"] for row in self._rows if row["key"])
        for name, scan in scans.items():
            found, known = counts[name] + keyed[name], expected[name]
            if known is not None and known != found:
                self.add(name, "", f"the shard must hold {known} examples, it holds {found}")
                self._num_missing += abs(known - found)
            elif known is None and scan.damage:
                self._num_missing += max(usual - found, 1)

    def check_share(self, num_used: int, max_share: float) -> None:
        """Raises DataError if the share of rejects, missing examples included, is too large."""
        num_rejected = sum(bool(row["key"]) for row in self._rows) + self._num_missing
        if num_used == 0 or num_rejected > max_share * (num_used + num_rejected):
            reasons = Counter(row["reason"] for row in self._rows).most_common(3)
            first = next(iter(self._rows), {"shard": "any shard", "key": "", "reason": ""})
            raise DataError(
                f"at most {max_share:.3%} of the examples may be rejected, got {num_rejected} "
                f"against {num_used} usable; most often: "
                f"{'; '.join(f'{reason} ({count})' for reason, count in reasons)}, "
                f"first in {first['shard']} {first['key']!r}. Mend the shards, or accept more."
            )

    def table(self) -> pa.Table:
        """Returns the rejects with the columns of `REJECT_SCHEMA`."""
        return pa.Table.from_pylist(self._rows, REJECT_SCHEMA)


def class_names(scans: Iterable[ShardScan], rule: LabelRule) -> tuple[str, ...]:
    """Returns the classes that shards hold, in the order of their numbers.

    Labels that are numbers count from "0" to the largest. Others, and all folders, are names, in
    sorted order. Where ``json`` fields are mixed, the greater part decides.
    """
    texts = {label for scan in scans for label in scan.examples["label"].unique().to_pylist()}
    numbers = [number for number in map(_number, texts) if number is not None]
    if rule.text == "cls" or (rule.text != "folder" and len(numbers) * 2 > len(texts)):
        return tuple(str(number) for number in range(max(numbers, default=-1) + 1))
    return tuple(sorted(texts))


def class_numbers(classes: Sequence[str], rule: LabelRule) -> Callable[[str], int]:
    """Returns the function from a label's text to its number, -1 where it is no class."""
    by_name = {text: number for number, text in enumerate(classes)}

    def number_of(text: str) -> int:
        number = by_name.get(text) if rule.text != "cls" else None
        if number is None and rule.text != "folder":
            number = _number(text)
        return number if number is not None and number < len(classes) else -1

    return number_of


def _number(text: str) -> int | None:
    """Returns a class number, or None where the text is none."""
    usable = text.isascii() and text.isdecimal() and len(text) < 9
    return int(text) if usable and int(text) < MAX_CLASSES else None


def numbered_rows(
    name: str, scan: ShardScan, split: str, numbers: Callable[[str], int], rejects: Rejects
) -> pa.Table:
    """Returns a shard's rows of the index; labels that are no class become rejects."""
    label = np.array([numbers(text) for text in scan.examples["label"].to_pylist()], np.int64)
    for at in np.flatnonzero(label < 0).tolist():
        row = scan.examples.slice(at, 1).to_pylist()[0]
        rejects.add(name, row["key"], f"label is no class: {row['label'][:80]!r}")
    kept = scan.examples.filter(pa.array(label >= 0))
    keys = kept["key"].to_pylist()
    columns = {
        "key": kept["key"],
        "key_hash": key_hashes(keys),
        "shard": [name] * len(keys),
        "offset": kept["offset"],
        "size": kept["size"],
        "label": label[label >= 0],
        "split": [split] * len(keys),
    }
    return pa.table(columns, INDEX_SCHEMA)


def without_repeats(table: pa.Table, rejects: Rejects) -> pa.Table:
    """Keeps the first example of a key; the keys themselves are compared where hashes agree."""
    hashes = table["key_hash"].to_numpy()
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    suspects = np.unique(np.concatenate([order[again], order[again - 1]]))
    first: dict[str, str] = {}
    keep = np.ones(len(hashes), bool)
    for at, row in zip(suspects.tolist(), _rows(table, suspects), strict=True):
        if row["key"] in first:
            keep[at] = False
            rejects.add(row["shard"], row["key"], f"duplicate key, first in {first[row['key']]}")
        else:
            first[row["key"]] = row["shard"]
    return table.filter(pa.array(keep)) if len(suspects) else table


def _rows(table: pa.Table, positions: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    return itertools.chain(table.select(["key", "shard"]).take(pa.array(positions)).to_pylist())


def with_validation(table: pa.Table, val_fraction: float, seed: int) -> pa.Table:
    """Moves training examples to validation by a hash of (seed, key)."""
    keys = table["key"].to_pylist()
    split = np.array(table["split"].to_pylist(), dtype="<U5")
    held_out = key_hashes([f"{seed}/{key}" for key in keys]) < int(val_fraction * 2.0**64)
    split[(split == "train") & held_out] = "val"
    at = INDEX_SCHEMA.get_field_index("split")
    return table.set_column(at, "split", pa.array(split.tolist(), pa.string()))
