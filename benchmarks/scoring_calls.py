"""What per_example_grad_norms costs beside a prepared scorer, and the last layer of a ViT.

Every round times each way once, in turn, in CPU time of this one process; ratios are taken within a
round. The function is called for the first time before the rounds, so that a round's call is a
second call; the batch of another size is one that the function has never seen before its first
round.

    python benchmarks/scoring_calls.py --rounds 7 --out 2026-11-28-scoring-calls.json
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from recording import Record
from torch import Tensor, nn

from raygrad.scoring import GradNormScorer, per_example_grad_norms
from raygrad.training.networks import NETWORKS, ImageSpec

LAST = "grad_l2_last_layer_weights"
WEIGHTS = "grad_l2_weights"


def vit_small() -> nn.Module:
    """ViT-S/16 for 224 pixels."""
    return torchvision.models.VisionTransformer(224, 16, 12, 6, 384, 1536)


CALLS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mnist_cnn": (lambda: NETWORKS["cnn"](ImageSpec(1, 28, 28, 10)), (1, 28, 28), 128),
    "alexnet": (torchvision.models.alexnet, (3, 224, 224), 32),
    "resnet18": (torchvision.models.resnet18, (3, 224, 224), 8),
}
"""Network, image shape and batch size of the calls."""

VITS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit_s_16": (vit_small, 4),
    "vit_b_16": (torchvision.models.vit_b_16, 2),
}
"""Network and batch size of the last layers."""


def cpu_s(step: Callable[[], object]) -> float:
    """CPU seconds of one step, over all threads."""
    start = time.process_time()
    step()
    return time.process_time() - start


def batch(shape: tuple[int, ...], size: int) -> tuple[Tensor, Tensor]:
    """Images and labels that are the same in every run."""
    images = torch.randn(size, *shape, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(size) % 10


def calls(record: Record, name: str, rounds: int) -> None:
    """Times second calls of the function, for the first batch size and for another."""
    make, shape, size = CALLS[name]
    torch.manual_seed(0)
    model = make().eval()
    scorer = GradNormScorer(model, (WEIGHTS,))
    images, labels = batch(shape, size)
    first = cpu_s(lambda: per_example_grad_norms(model, images, labels))
    scorer.score(images, labels)
    for many in (size, size // 2 + 1):
        x, y = images[:many], labels[:many]
        ways = {
            "scorer": lambda x=x, y=y: scorer.score(x, y).norms[WEIGHTS],
            "function": lambda x=x, y=y: per_example_grad_norms(model, x, y)[WEIGHTS],
        }
        rows = measured(ways, rounds)
        fresh = GradNormScorer(model, (WEIGHTS,)).score(x, y).norms[WEIGHTS]
        same = bool(torch.equal(ways["function"](), fresh))
        found = ratios(rows, "function", "scorer")
        add(record, network=name, batch=many, against="scorer", way="function",
            first_call_s=first, same_numbers=same, ratios=found, **rows)  # fmt: skip


def last_layer(record: Record, name: str, rounds: int) -> None:
    """Times preparing for, and scoring by, the last layer, against a forward pass."""
    make, size = VITS[name]
    torch.manual_seed(0)
    model = make().eval()
    images, labels = batch((3, 224, 224), size)

    def forward() -> Tensor:
        with torch.no_grad():
            return model(images)

    forward()
    preparing = []
    for _ in range(2):
        scorer = GradNormScorer(model, (LAST,))
        preparing.append(cpu_s(lambda scorer=scorer: scorer.explain(images)))
    scorer.score(images, labels)
    rows = measured(
        {"forward": forward, "last layer": lambda: scorer.score(images, labels)}, rounds
    )
    add(record, network=name, batch=size, against="forward", way="last layer",
        preparing_s=preparing, ratios=ratios(rows, "last layer", "forward"), **rows)  # fmt: skip


def measured(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every way in every round; the order turns round by round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = list(ways) if number % 2 else list(ways)[::-1]
        for name in order:
            found[name].append(cpu_s(ways[name]))
    return found


def ratios(rows: dict[str, list[float]], way: str, against: str) -> list[float]:
    """One ratio a round."""
    return [a / b for a, b in zip(rows[way], rows[against], strict=True)]


def add(record: Record, **row: object) -> None:
    """Adds a row and prints it with its median."""
    found = sorted(row["ratios"])  # type: ignore[call-overload]  # a list of floats
    shown = {k: v for k, v in row.items() if k in ("network", "batch", "way", "preparing_s",
             "first_call_s", "same_numbers")}  # fmt: skip
    print(shown, f"median {statistics.median(found):.3f}, {found[0]:.3f} to {found[-1]:.3f}",
          flush=True)  # fmt: skip
    record.add(**row)


def main() -> None:
    """Measures all that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="+", default=[*CALLS, *VITS])
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    record = Record(
        "A second call of per_example_grad_norms against a prepared scorer, and the last layer of "
        "a ViT against a forward pass, in CPU time.",
        settings=vars(args),
    )
    record.write(args.out)
    for name in args.networks:
        (calls if name in CALLS else last_layer)(record, name, args.rounds)


if __name__ == "__main__":
    main()
