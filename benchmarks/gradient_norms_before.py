"""What scoring costs now beside what it cost in another commit, in one process.

The scoring package of the other commit is imported from its work tree, put aside, and this tree's
is imported after it; both score the same model and images. Every round times each once, in turn,
the order turning round by round, in CPU time of one thread; ratios are taken within a round.

    git worktree add BEFORE COMMIT
    python benchmarks/gradient_norms_before.py --before BEFORE --networks mnist_cnn:128 --rounds 7
"""

import argparse
import importlib
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gradient_norms import CASES, COLUMNS, inference, training_pass
from recording import Record
from scoring_calls import measured


def scorer_of(tree: Path) -> Callable[..., Any]:
    """The scorer of another work tree; this process's own raygrad is as it was afterwards."""
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    sys.path.insert(0, str(tree))
    try:
        importlib.invalidate_caches()
        found = importlib.import_module("raygrad.scoring").GradNormScorer
        assert Path(sys.modules["raygrad"].__file__ or "").is_relative_to(tree)
    finally:
        sys.path.remove(str(tree))
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(own)
    return found  # type: ignore[no-any-return]  # a class of another tree


def _is_ours(name: str) -> bool:
    return name == "raygrad" or name.startswith("raygrad.")


def compare(record: Record, before: Callable[..., Any], case: str, rounds: int) -> None:
    """Times all sets of columns of one network, in both commits."""
    from raygrad.scoring import GradNormScorer

    name, _, size = case.partition(":")
    make, shape, batch = CASES[name]
    batch = int(size or batch)
    torch.manual_seed(0)
    model = make().eval()
    images, labels = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    ways: dict[str, Callable[[], object]] = {
        "forward+backward": training_pass(model, images, labels),
        "forward only": inference(model, images),
    }
    for columns in COLUMNS:
        for way, kind in (("before", before), ("now", GradNormScorer)):
            scorer = kind(model, COLUMNS[columns])
            # The audits of the first batches come before the rounds.
            scorer.score(images, labels)
            ways[f"{columns}, {way}"] = lambda scorer=scorer: scorer.score(images, labels)
    for step in ways.values():
        step()
    rows = measured(ways, rounds)
    for columns in COLUMNS:
        unit = "forward only" if columns == "last layer" else "forward+backward"
        now, was = (
            [a / b for a, b in zip(rows[f"{columns}, {way}"], rows[unit], strict=True)]
            for way in ("now", "before")
        )
        pairs = zip(rows[f"{columns}, now"], rows[f"{columns}, before"], strict=True)
        ratios = [a / b for a, b in pairs]
        record.add(network=name, batch=batch, columns=columns, unit=unit, now=now, before=was,
                   ratios=ratios)  # fmt: skip
        print(f"{name} {batch}, {columns}: now {statistics.median(now):.2f}, before "
              f"{statistics.median(was):.2f} of {unit}; now / before "
              f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
              flush=True)  # fmt: skip


def main() -> None:
    """Measures all that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", required=True, help="NAME or NAME:BATCH")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "-C", args.before, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    record = Record(
        "Scoring costs no more than before, in CPU time of one thread.",
        settings={**vars(args), "before": commit},
    )
    before = scorer_of(args.before.resolve())
    for case in args.networks:
        compare(record, before, case, args.rounds)
    record.write(args.out)


if __name__ == "__main__":
    main()
