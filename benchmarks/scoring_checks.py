"""What the checks of scoring cost in a shard of 1,000 images.

One scorer is prepared. Every round scores one batch without a check, one in which the first check
is due (the last example by the plain loop, and the whole batch in another order), one in which a
later check is due (an example alone), and copies the images (every call of the model has its own),
in turn, in one process, by CPU time of one thread. The first shard of a scorer has one first check,
every shard a later one every `EVERY` images at most. What they add, against the shard's batches
without any:

    first shard: (first - bare + later checks x (later - bare) + batches x copy) / (batches x bare)
    later shard: (later checks x (later - bare) + batches x copy) / (batches x bare)

    python benchmarks/scoring_checks.py --networks mnist_cnn five_layer_cnn resnet18 --out NAME.json
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from gradient_norms import CASES
from recording import Record
from scoring_calls import measured

from raygrad.scoring import GradNormScorer
from raygrad.scoring.audit import EVERY, Audit

SHARD = 1000
"""Images of a shard."""


def ways(
    scorer: GradNormScorer, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """The three kinds of batches, and the copy of one."""
    key = next(iter(scorer._plans))

    def score(audit: Audit, is_new: bool = False) -> object:
        scorer._audits[key] = audit
        if is_new:
            scorer._unseen.add(key)  # looked over in another order, as a plan's first batch is
        return scorer.score(images, labels)

    seen = len(images)
    return {
        # An audit that is never due again, of a size whose last example was compared.
        "bare": lambda: score(Audit(count=2, images=-(10**9), sizes={seen})),
        "first": lambda: score(Audit(), is_new=True),
        "later": lambda: score(Audit(count=2, images=10**9, sizes={seen})),
        "copy": images.clone,
    }


def main() -> None:
    """Prints a line for each network, and keeps every repetition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", required=True, help="NAME or NAME:BATCH")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = Record(
        "What the checks of scoring cost of a shard of 1,000 images, in CPU time.",
        settings={**vars(args), "shard": SHARD, "every": EVERY},
    )
    for case in args.networks:
        name, _, size = case.partition(":")
        make, shape, batch = CASES[name]
        batch = int(size or batch)
        torch.manual_seed(0)
        model = make().eval()
        images, labels = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
        scorer = GradNormScorer(model)
        scorer.score(images, labels)
        scorer.score(images, labels)
        rows = measured(ways(scorer, images, labels), args.rounds)
        batches, later = SHARD / batch, (SHARD - batch) // EVERY
        shares = [
            (first - bare + later * (single - bare) + batches * copy) / (batches * bare)
            for bare, first, single, copy in zip(*rows.values(), strict=True)
        ]
        checks = SHARD // EVERY
        afterwards = [
            (checks * (single - bare) + batches * copy) / (batches * bare)
            for bare, _, single, copy in zip(*rows.values(), strict=True)
        ]
        record.add(
            network=name,
            batch=batch,
            later_checks=later,
            shares=shares,
            later_shards=afterwards,
            **rows,
        )
        for what, found in (("first shard", shares), ("later shards", afterwards)):
            middle, ends = statistics.median(found), (min(found), max(found))
            print(f"{name} {batch}, {what}: median {middle:.2%}, {ends[0]:.2%} to {ends[1]:.2%}, "
                  f"n = {len(found)}", flush=True)  # fmt: skip
    record.write(args.out)


if __name__ == "__main__":
    main()
