"""The rows of the index: classes, splits, repeated keys, and the rejects that remain."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raygrad.data.class_numbers import ClassNumbers
from raygrad.data.columns import pieces
from raygrad.data.reject_share import place
from raygrad.data.shard_scan import ShardScan
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
_TEXT = pa.field("text", pa.string())


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
                f"first in {place(first)}. {_remedy(reasons)}"
            )

    def table(self) -> pa.Table:
        """Returns the rejects with the columns of `REJECT_SCHEMA`."""
        return pa.Table.from_pylist(self._rows, REJECT_SCHEMA)


def _remedy(reasons: list[tuple[str, int]]) -> str:
    if reasons and reasons[0][0].startswith("no label"):
        return (
            "Say where labels stand, such as --labels txt, json:FIELD, folder, shard or TABLE.csv; "
            "or mend the shards."
        )
    return "Mend the shards, or accept more: --max-reject-share."


def text_rows(name: str, scan: ShardScan, split: str) -> pa.Table:
    """Returns a shard's rows of the index, their labels still as ``text``."""
    found = scan.examples
    columns = {
        "key": found["key"],
        "key_hash": key_hashes(found["key"].to_pylist()),
        "shard": pa.repeat(name, found.num_rows),
        "offset": found["offset"],
        "size": found["size"],
        "text": found["label"],
        "split": pa.repeat(split, found.num_rows),
    }
    schema = INDEX_SCHEMA.set(INDEX_SCHEMA.get_field_index("label"), _TEXT)
    return pa.table(columns, schema)


def with_distinct_keys(table: pa.Table, rejects: Rejects) -> tuple[pa.Table, str]:
    """Puts the shard's name before a key that an earlier shard holds; what then repeats is refused.

    Keys that are counted anew in each shard or split are different examples. The keys themselves
    are compared where hashes agree.

    Returns:
        The rows, and what the user should know of them.
    """
    hashes = table["key_hash"].to_numpy()
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    suspects = np.unique(np.concatenate([order[again], order[again - 1]]))
    first: dict[str, str] = {}
    renamed: dict[int, str] = {}
    repeated = []
    for at, row in zip(suspects.tolist(), _rows(table, suspects), strict=True):
        if row["key"] in first:
            renamed[at] = f"{row['shard']}/{row['key']}"
            repeated.append(row | {"first": first[row["key"]]})
        else:
            first[row["key"]] = row["shard"]
    if not renamed:
        return table, ""
    positions, names = np.array(list(renamed)), list(renamed.values())
    new_hashes = key_hashes(names)
    # A name that another example bears already, by its hash, would be a duplicate of its own.
    taken = np.isin(new_hashes, hashes) | _repeats(new_hashes)
    for at in np.flatnonzero(taken).tolist():
        row = repeated[at]
        rejects.add(row["shard"], row["key"], f"duplicate key, first in {row['first']}")
    keys = table["key"].to_pylist()
    for at, name in renamed.items():
        keys[at] = name
    hashes = hashes.copy()
    hashes[positions] = new_hashes
    keep = np.ones(len(hashes), bool)
    keep[positions[taken]] = False
    columns = {"key": pa.array(keys, pa.string()), "key_hash": pa.array(hashes)}
    for column, values in columns.items():
        table = table.set_column(table.schema.get_field_index(column), column, values)
    row = repeated[0]
    note = (
        f"{len(renamed)} keys stand in an earlier shard too, such as {row['key']!r} of "
        f"{row['shard']} in {row['first']}: they are taken for other examples, and the shard's "
        f"name is put before the key: {names[0]!r}"
    )
    return table.filter(pa.array(keep)), note


def _repeats(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tells of each hash whether it stands earlier in the array."""
    _, first = np.unique(hashes, return_index=True)
    repeated = np.ones(len(hashes), bool)
    repeated[first] = False
    return repeated


def _rows(table: pa.Table, positions: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    return itertools.chain(table.select(["key", "shard"]).take(pa.array(positions)).to_pylist())


def text_counts(table: pa.Table, split: str) -> dict[str, int]:
    """Returns how many examples of a split have each text of a label."""
    texts = table.filter(pc.equal(table["split"], split))["text"]
    found = pc.value_counts(texts.drop_null()).to_pylist()
    return {one["values"]: one["counts"] for one in found}


def with_labels(
    table: pa.Table, classes: ClassNumbers, rejects: Rejects, no_label: str
) -> pa.Table:
    """Returns rows with the number of their class for its text; the others become rejects.

    Args:
        table: Rows of `text_rows`.
        classes: From text to number.
        rejects: Takes labels that are no class.
        no_label: The reason of an example that has no text.
    """
    texts = table["text"].combine_chunks().dictionary_encode()
    numbers = np.array([*map(classes.number_of, texts.dictionary.to_pylist()), -1], np.int64)
    label = numbers[texts.indices.fill_null(len(numbers) - 1).to_numpy()]
    wrong = np.flatnonzero(label < 0)
    bad = table.select(["shard", "key", "text"]).take(pa.array(wrong)).to_pylist()
    for row in bad:
        missing = row["text"] is None
        reason = no_label if missing else f"label is no class: {row['text'][:80]!r}"
        rejects.add(row["shard"], row["key"], reason)
    at = table.schema.get_field_index("text")
    table = table.set_column(at, INDEX_SCHEMA.field("label"), pa.array(label))
    return table.filter(pa.array(label >= 0)) if len(wrong) else table


def with_validation(table: pa.Table, val_fraction: float, seed: int) -> pa.Table:
    """Moves training examples to validation by a hash of (seed, key)."""
    limit = int(val_fraction * 2.0**64)
    splits = []
    for piece in pieces(table, ["key", "split"]):
        keys, split = piece.column(0).to_pylist(), np.array(piece.column(1).to_pylist(), "<U5")
        held_out = key_hashes([f"{seed}/{key}" for key in keys]) < limit
        split[(split == "train") & held_out] = "val"
        splits.append(pa.array(split.tolist(), pa.string()))
    at = INDEX_SCHEMA.get_field_index("split")
    return table.set_column(at, "split", pa.chunked_array(splits, pa.string()))
