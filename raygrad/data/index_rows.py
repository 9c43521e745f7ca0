"""The rows of the index: classes, splits, repeated keys, and the rejects that remain."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
PART_SCHEMA = pa.schema(
    [INDEX_SCHEMA.field(name) for name in ("key", "key_hash", "offset", "size")] + [_TEXT]
)
SHARD_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("url", pa.string()),
        ("num_examples", pa.int64()),
        ("num_bytes", pa.int64()),
        ("digest", pa.string()),
        ("source", pa.string()),
    ]
)


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


def part_rows(scan: ShardScan) -> pa.Table:
    """Returns a shard's rows with the columns of `PART_SCHEMA`: what its tar alone tells."""
    found = scan.examples
    columns = [
        found["key"],
        pa.array(key_hashes(found["key"].to_pylist())),
        found["offset"],
        found["size"],
        found["label"],
    ]
    return pa.table(columns, schema=PART_SCHEMA)


def text_rows(part: pa.Table, name: str, split: str) -> pa.Table:
    """Returns a shard's rows of the index, their labels still as ``text``."""
    columns = {
        "key": part["key"],
        "key_hash": part["key_hash"],
        "shard": pa.repeat(name, part.num_rows),
        "offset": part["offset"],
        "size": part["size"],
        "text": part["text"],
        "split": pa.repeat(split, part.num_rows),
    }
    schema = INDEX_SCHEMA.set(INDEX_SCHEMA.get_field_index("label"), _TEXT)
    return pa.table(columns, schema)


def text_counts(rows: pa.Table) -> dict[str, int]:
    """Returns how many rows have each text of a label."""
    found = pc.value_counts(rows["text"].drop_null()).to_pylist()
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
