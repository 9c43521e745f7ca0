"""What an index finds of the nearest pictures among many, beside exact search, and its cost.

    python benchmarks/nearest_scale.py --run runs/cifar10-with-copies --numbers 62400 300000 \
        --record benchmarks/records/DATE-nearest-scale.json

The run is one of `benchmarks/audit.py`, whose look at planted copies is read. More pictures are
made of the same ones: turned and mirrored in eight ways, each whole and cut to its middle, so that
every vector is of a real picture, and a near copy is there once a variant. Vectors are what the
audit compares: whitened frequencies. Truth is exact search over all, for a sample of queries.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from planting import original
from recording import Record
from scipy.fft import dctn

from raygrad.audit import nearest
from raygrad.audit.pictures import FREQUENCIES, SIDE
from raygrad.audit.repeats import NEAREST, _whitened
from raygrad.data.index import read_index
from raygrad.pipeline.audit_looking import look

VARIANTS = 16


def variants(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yields the pictures in eight positions, then the middles of all in eight positions."""
    quarter = SIDE // 4
    for cut in (False, True):
        some = pictures
        if cut:
            middles = pictures[:, quarter // 2 : -quarter // 2, quarter // 2 : -quarter // 2]
            size = (SIDE, SIDE)
            some = np.stack([np.asarray(Image.fromarray(one).resize(size)) for one in middles])
        for turns in range(4):
            turned = np.rot90(some, turns, (1, 2))
            yield turned
            yield turned[:, :, ::-1]


def descriptors(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the lowest frequencies of small greys, as the audit's look does, ``[N, 63]``."""
    blocks = []
    for at in range(0, len(pictures), 8192):
        found = dctn(pictures[at : at + 8192].astype(np.float32), axes=(1, 2), norm="ortho")
        blocks.append(found[:, :FREQUENCIES, :FREQUENCIES].reshape(len(found), -1)[:, 1:])
    return np.concatenate(blocks).astype(np.float32)


def planted(keys: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the places of near copies, and of the pictures that they are copies of."""
    names = [key.rsplit("/", 1)[-1] for key in keys]
    plain = {original(name): at for at, name in enumerate(names) if name.count("-") == 1}
    near = [at for at, name in enumerate(names) if name.endswith("near")]
    return np.array(near), np.array([plain[original(names[at])] for at in near])


def measured(
    vectors: NDArray[np.float32], near: NDArray[np.int64], of: NDArray[np.int64], queries: int
) -> dict[str, object]:
    """Returns an index's time, memory and recall on vectors, with exact search of a sample."""
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(vectors), queries, replace=False))
    copies = rng.permutation(len(near))[:queries]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    found = nearest.indexed_neighbours(vectors, NEAREST)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    exact = nearest.exact_neighbours(vectors, NEAREST, sample)
    of_sample = time.process_time() - begun
    true = nearest.exact_neighbours(vectors, NEAREST, near[copies])
    hits = [len(set(a) & set(b)) for a, b in zip(exact.at, found.at[sample], strict=True)]
    partner = of[copies][:, None]
    by_index = (found.at[near[copies]] == partner).any(axis=1)
    by_exact = (true.at == partner).any(axis=1)
    return {
        "index_seconds": seconds,
        "index_cpu_seconds": cpu,
        "index_mib_above": (peak - before) / 1024,
        "vectors_mib": vectors.nbytes / 2**20,
        "said_recall": found.recall,
        "recall": sum(hits) / (NEAREST * queries),
        "hits_by_query": hits,
        "copies_asked": len(copies),
        "copies_by_index": int(by_index.sum()),
        "copies_by_exact": int(by_exact.sum()),
        "copies_by_exact_alone": int((by_exact & ~by_index).sum()),
        "exact_cpu_milliseconds_a_query": 1e3 * of_sample / queries,
    }


def main() -> None:
    """Measures each number of vectors, the fewest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--numbers", type=int, nargs="+", required=True)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--whole", type=int, default=0, help="all exactly, up to so many")
    parser.add_argument("--connectivity", type=int, default=nearest._CONNECTIVITY)
    parser.add_argument("--expansion", type=int, default=nearest._EXPANSION)
    parser.add_argument("--record", type=Path, required=True)
    args = parser.parse_args()
    nearest._CONNECTIVITY, nearest._EXPANSION = args.connectivity, args.expansion
    index = read_index(str(args.run / "data"))
    folder = next((args.run / "audit" / "steps").glob("look-*"))
    seen = look(index, 3, None, str(folder))
    near, of = planted(seen.rows["key"].to_pylist())
    record = Record("Time, memory and recall of the index that finds the nearest", vars(args))
    record.write(args.record)
    number = len(seen.pictures)
    for wanted in sorted(args.numbers):
        each = -(-wanted // number)
        assert each <= VARIANTS, f"at most {VARIANTS * number} vectors, got {wanted}"
        some = [descriptors(x) for x, _ in zip(variants(seen.pictures), range(each), strict=False)]
        vectors = _whitened(np.concatenate(some)[:wanted])
        shifts = [at * number for at in range(each)]
        copies = np.concatenate([near + at for at in shifts])
        pictures = np.concatenate([of + at for at in shifts])
        inside = np.maximum(copies, pictures) < wanted
        row = measured(vectors, copies[inside], pictures[inside], args.queries)
        if wanted <= args.whole:
            start, cpu = time.perf_counter(), time.process_time()
            nearest.exact_neighbours(vectors, NEAREST)
            row["exact_seconds"] = time.perf_counter() - start
            row["exact_cpu_seconds"] = time.process_time() - cpu
        record.add(vectors=wanted, width=vectors.shape[1], **row)
        print({name: value for name, value in row.items() if name != "hits_by_query"}, flush=True)


if __name__ == "__main__":
    main()
