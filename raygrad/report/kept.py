"""Which examples every subset of a run holds, as rows of the score table."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.errors import ConfigError
from raygrad.report.tables import Run
from raygrad.runs.subsets import read_subset
from raygrad.storage.files import join, list_files

_MOST_ROWS = 3_000_000  # of all subsets together; beyond, one seed of each is read


@dataclass(frozen=True)
class Kept:
    """What one method keeps at one share.

    Attributes:
        method: The method.
        keep_fraction: The share, below 1.
        seeds: The seeds that were read.
        positions: Rows of the score table that each seed's subset holds, int64, one array a seed.
    """

    method: str
    keep_fraction: float
    seeds: tuple[int, ...]
    positions: tuple[np.ndarray, ...]


def read_kept(run: Run, network: str) -> list[Kept]:
    """The subsets of a run that were drawn from one network's scores, by method and share.

    Subsets of all the data say nothing and are left out. Of very many rows, only the first seed of
    each method and share is read.

    Args:
        run: The run.
        network: The network whose scores they were drawn from.
    """
    urls = [u for u in list_files(join(run.url, "subsets")) if u.endswith(".parquet")]
    cells: dict[tuple[str, float], dict[int, str]] = defaultdict(dict)
    for url in sorted(urls):
        method, fraction, seed = _named(url)
        if method and 0 < fraction < 1:
            cells[method, fraction].setdefault(seed, url)
    size = len(run.scores[network].labels)
    rows = sum(fraction * size * len(seeds) for (_, fraction), seeds in cells.items())
    most = 1 if rows > _MOST_ROWS else None
    chosen = [
        (cell, seed, url)
        for cell, seeds in sorted(cells.items())
        for seed, url in sorted(seeds.items())[:most]
    ]
    found = _positions(run, network, [url for _, _, url in chosen])
    held: dict[tuple[str, float], dict[int, np.ndarray]] = defaultdict(dict)
    for (cell, seed, _), at in zip(chosen, found, strict=True):
        if len(at):
            held[cell][seed] = at
    return [
        Kept(method, fraction, tuple(by_seed), tuple(by_seed.values()))
        for (method, fraction), by_seed in held.items()
    ]


def _named(url: str) -> tuple[str, float, int]:
    """Method, share and seed by a subset's name, without reading it; an empty method for others."""
    stem = url.rpartition("/")[2].removesuffix(".parquet")
    parts = stem.rsplit("-", 2)
    # 1e-05 has a hyphen of its own.
    if len(parts) == 3 and parts[0].endswith("e") and parts[0][:-1].rpartition("-")[2]:
        head, _, mantissa = parts[0].rpartition("-")
        parts = [head, f"{mantissa}-{parts[1]}", parts[2]]
    try:
        return parts[0], float(parts[1]), int(parts[2])
    except (IndexError, ValueError):
        return "", 0.0, 0


def _positions(run: Run, network: str, urls: Sequence[str]) -> list[np.ndarray]:
    """Rows of the score table that each subset holds; none where it is not of these scores."""
    keys = [_keys_of(network, url) for url in urls]
    if not keys:
        return []
    together = pa.chunked_array(keys, pa.string())
    # One look-up of all: the table of a million keys is built once.
    known = run.scores[network].table["key"].combine_chunks()
    at = pc.fill_null(pc.index_in(together, value_set=known), -1).to_numpy()
    ends = np.cumsum([len(part) for part in keys])
    return [part[part >= 0] for part in np.split(at, ends[:-1])]


def _keys_of(network: str, url: str) -> pa.Array:
    try:
        table, origin = read_subset(url)
    except (ConfigError, OSError, pa.ArrowInvalid):
        return pa.array([], pa.string())  # The sweep refuses damage; the page shows the others.
    if origin.get("score_network") not in (None, network):
        return pa.array([], pa.string())
    return table["key"].cast(pa.string()).combine_chunks()


def members(kept: Sequence[Kept], shown: np.ndarray) -> list[list[int]]:
    """How many seeds' subsets hold each of some examples: a list an example, an entry a ``Kept``.

    Args:
        kept: The subsets.
        shown: Rows of the score table.
    """
    counts = np.stack(
        [sum(np.isin(shown, at).astype(np.int64) for at in k.positions) for k in kept], axis=1
    )
    return [[int(v) for v in row] for row in counts]
