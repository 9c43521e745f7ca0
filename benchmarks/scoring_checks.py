"""What the checks of scoring cost: 1,000 images with and without the audits and own copies.

One scorer is prepared once; every round scores the same 1,000 images with a fresh set of audits and
with none, in turn, in one process, by CPU time of one thread.

    python benchmarks/scoring_checks.py --networks mnist_cnn five_layer_cnn resnet18 --rounds 5
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from gradient_norms import CASES

from raygrad.scoring import GradNormScorer
from raygrad.scoring.audit import Audit

SHARD = 1000
"""Images of a shard."""


def shard_seconds(
    scorer: GradNormScorer, images: torch.Tensor, labels: torch.Tensor, *, audited: bool
) -> float:
    """CPU time of scoring a shard of batches like this one."""
    scorer._audits.clear()
    if not audited:
        key = next(iter(scorer._plans))
        # An audit that is never due again.
        scorer._audits[key] = Audit(count=1, images=-(10**9))
    start = time.process_time()
    for _ in range(SHARD // len(images)):
        scorer.score(images, labels)
    return time.process_time() - start


def main() -> None:
    """Prints a line of JSON for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=CASES, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.networks:
        make, shape, _ = CASES[name]
        torch.manual_seed(0)
        model = make().eval()
        images, labels = torch.randn(args.batch, *shape), torch.randint(0, 10, (args.batch,))
        scorer = GradNormScorer(model)
        scorer.score(images, labels)
        with_s, without_s = [], []
        for _ in range(args.rounds):
            with_s.append(shard_seconds(scorer, images, labels, audited=True))
            without_s.append(shard_seconds(scorer, images, labels, audited=False))
        ratios = [a / b for a, b in zip(with_s, without_s, strict=True)]
        row = {"network": name, "batch": args.batch, "audited_s": with_s, "bare_s": without_s,
               "ratios": ratios, "median": statistics.median(ratios)}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
