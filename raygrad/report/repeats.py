"""Examples that are there more than once: found by their scores, confirmed by their bytes.

A copy of a file has its size and, from one network, its scores. So only files that agree in both
are read and compared: a few hundred of a million, and none of them is called a copy on trust.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.data.decode import decode_image
from raygrad.data.index import Index
from raygrad.data.reading import read_rows
from raygrad.errors import DataError, IncompleteError
from raygrad.report.tables import Run, Scores, matched, positions_of
from raygrad.report.thumbnails import Thumbnail, make_thumbnail

# Scores that do not look at the label: they are equal of copies under different labels too.
_BLIND = ("entropy", "least_confidence")
_SAME = (
    1e-3  # rounding between batches is far below, and chance would have to meet it in each score
)
_NEXT = 3  # neighbours in the order of the scores that each example is compared with
_MOST_READ = 600


@dataclass(frozen=True)
class Repeats:
    """Groups of examples whose files are the same, byte for byte.

    Attributes:
        groups: Rows of the score table, two or more a group; those under several labels first.
        pictures: A picture of each, by key.
        compared: How many files were read to find out.
        left: How many more may be copies by size and scores, and were not read.
        blind: Whether copies under different labels would have been found.
    """

    groups: Sequence[np.ndarray]
    pictures: dict[str, Thumbnail]
    compared: int
    left: int
    blind: bool


def alike(sizes: np.ndarray, labels: np.ndarray, scores: Scores) -> np.ndarray:
    """Rows of examples that may be copies of another, the likeliest first, int64.

    Args:
        sizes: Bytes of each file, ``[N]``; NaN where not known.
        labels: Class of each, ``[N]``.
        scores: The scores of one network.
    """
    blind = [c for c in _BLIND if c in scores.columns]
    compared = blind or scores.columns
    values = {c: scores.values(c) for c in scores.columns}
    known = np.isfinite(sizes) & np.all([np.isfinite(values[c]) for c in compared], axis=0)
    # Without such a score, a copy is known by its label too.
    keys = [values[compared[0]], sizes] if blind else [values[compared[0]], labels, sizes]
    order = np.lexsort(keys)
    order = order[known[order]]
    one = np.concatenate([order[:-n] for n in range(1, _NEXT + 1)])
    other = np.concatenate([order[n:] for n in range(1, _NEXT + 1)])
    same = (sizes[one] == sizes[other]) & (labels[one] == labels[other] if not blind else True)
    one, other = one[same], other[same]
    for column in compared:
        near = _difference(values[column], one, other) <= _SAME
        one, other = one[near], other[near]
    # Copies under one label agree in all the other scores as well.
    equal = labels[one] == labels[other]
    farthest = np.max([_difference(values[c], one, other) for c in scores.columns], axis=0)
    likely = ~equal | ~(farthest > _SAME)
    one, other, farthest = one[likely], other[likely], np.where(equal, farthest, 0)[likely]
    by = np.argsort(farthest, kind="stable")
    pairs = np.stack([one[by], other[by]], axis=1).ravel()
    _, first = np.unique(pairs, return_index=True)
    return np.asarray(pairs[np.sort(first)])


def _difference(values: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far two scores differ, relative to the larger; 0 of equal ones, infinite ones too."""
    a, b = values[one], values[other]
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, out)


def find_repeats(run: Run, network: str) -> Repeats | None:
    """Copies among a run's scored examples; None where its images cannot be read.

    Args:
        run: The run.
        network: Whose scores.
    """
    index, scores = run.index, run.scores[network]
    if index is None or not len(scores.labels):
        return None
    rows = index.rows("train")
    at = positions_of(scores.table["key"], rows)
    sizes = matched(rows["size"], at)
    candidates = alike(sizes, scores.labels, scores)
    chosen = candidates[:_MOST_READ]
    found = _read(
        index, rows.take(at.take(pa.array(chosen))), int(run.dataset.get("channels") or 3)
    )
    keys = scores.table["key"].take(pa.array(chosen)).to_pylist()
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for position, key in zip(chosen.tolist(), keys, strict=True):
        if key in found:
            by_content[found[key][0]].append(position)
    groups = [np.array(sorted(g)) for g in by_content.values() if len(g) > 1]
    groups.sort(key=lambda g: (len(np.unique(scores.labels[g])) == 1, int(g[0])))
    return Repeats(
        groups=groups,
        pictures={key: picture for key, (_, picture) in found.items()},
        compared=len(found),
        left=len(candidates) - len(chosen),
        blind=any(c in scores.columns for c in _BLIND),
    )


def _read(index: Index, rows: pa.Table, channels: int) -> dict[str, tuple[bytes, Thumbnail]]:
    """A hash of each file's bytes and its picture, by key; what cannot be read is left out."""
    found: dict[str, tuple[bytes, Thumbnail]] = {}
    for name in rows["shard"].unique().to_pylist():
        part = rows.filter(pc.equal(rows["shard"], name))
        try:
            for example in read_rows(index, part):
                pixels = decode_image(example.image, channels=channels)
                picture = make_thumbnail(pixels[:, :, 0] if channels == 1 else pixels)
                found[example.key] = hashlib.blake2b(example.image).digest(), picture
        except (OSError, DataError, IncompleteError):
            continue  # A shard that has moved since; the page says which under Images.
    return found
