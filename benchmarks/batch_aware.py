"""Batch-aware selection on CIFAR-10: time, memory, label entropy and alignment beside the others.

A small network is trained for some epochs; errors and features of its last layer are what is
selected from. The tar holds `train/<class>/*.jpg`.

    python benchmarks/batch_aware.py --tar cifar10-jpeg.tar --epochs 3 --arrays trained.npz
"""

import argparse
import io
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from recording import recorded
from torch import nn
from torch.nn import functional as F

from raygrad.selection import draw, draw_batch_aware
from raygrad.selection.analysis import label_entropy, uniform_entropy
from raygrad.selection.batch_aware import mean_alignment


def load(path: str, limit: int) -> tuple[torch.Tensor, np.ndarray, list[str]]:
    """Returns images `[N, 3, 32, 32]` in [-1, 1], labels, and keys."""
    images, names, keys = [], [], []
    with tarfile.open(path) as tar:
        members = [x for x in tar if "train/" in x.name and x.name.endswith(".jpg")]
        for at in np.sort(np.random.default_rng(0).permutation(len(members))[:limit]).tolist():
            file = tar.extractfile(members[at])
            assert file is not None
            images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
            keys.append(members[at].name)
            names.append(keys[-1].split("/")[-2])
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = np.unique(names, return_inverse=True)[1]
    return pixels, labels, keys


def network() -> tuple[nn.Module, nn.Linear]:
    """Returns a body of four convolutions with 128 features, and its last layer: five layers."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(128, 10)


def train(images: torch.Tensor, labels: np.ndarray, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns errors `[N, 10]` and features `[N, 128]` after training."""
    torch.manual_seed(0)
    body, last = network()
    target = torch.from_numpy(labels)
    parameters = [*body.parameters(), *last.parameters()]
    steps = epochs * -(-len(images) // 128)
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(epochs):
        for at in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(last(body(images[at])), target[at]).backward()
            optimizer.step()
            schedule.step()
    body.eval()
    with torch.no_grad():
        features = torch.cat([body(batch) for batch in images.split(1000)])
        errors = last(features).softmax(1)
        accuracy = (errors.argmax(1) == target).float().mean().item()
        errors[torch.arange(len(images)), target] -= 1
    print(f"training accuracy {accuracy:.3f} after {epochs} epochs")
    return errors.numpy(), features.numpy()


def main() -> None:
    """Trains, selects by each method, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tar", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--arrays", help="what training gave, kept there and used if it is there")
    parser.add_argument("--limit", type=int, default=50_000)
    parser.add_argument("--keep-fractions", type=float, nargs="+", default=[0.01, 0.1, 0.3])
    args, record = recorded(
        parser, "Batch-aware selection beside the others: time, memory, entropy, alignment."
    )
    if args.arrays and Path(args.arrays).exists():
        kept = np.load(args.arrays)
        errors, features, labels = kept["errors"], kept["features"], kept["labels"]
        keys = kept["keys"].tolist()
    else:
        images, labels, keys = load(args.tar, args.limit)
        errors, features = train(images, labels, args.epochs)
        if args.arrays:
            np.savez(args.arrays, errors=errors, features=features, labels=labels, keys=keys)
    norms = np.linalg.norm(errors, axis=1) * np.linalg.norm(features, axis=1)
    print(f"{len(keys)} examples; entropy of even labels {uniform_entropy(10):.4f}")
    print("keep  method                    time_s  peak_MiB  entropy  alignment  mean_norm")
    for fraction in args.keep_fractions:
        budget = round(fraction * len(keys))
        for name in ("random", "max_gradient", "max_gradient by class", "gradient_cdf", "batch"):
            tracemalloc.start()
            start = time.perf_counter()
            if name == "batch":
                at = draw_batch_aware(errors, features, labels, keys, budget)
            else:
                at = draw(
                    name.split()[0], norms, keys, budget, labels=labels,
                    class_balanced="by class" in name,
                )  # fmt: skip
            elapsed = time.perf_counter() - start
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            entropy = label_entropy(np.arange(float(budget)), labels[at])[-1]
            alignment = mean_alignment(errors[at], features[at])
            record.add(
                keep_fraction=fraction,
                method=name,
                examples=len(keys),
                seconds=[elapsed],
                peak_mib=peak,
                entropy=entropy,
                alignment=alignment,
                mean_norm=norms[at].mean(),
            )
            print(
                f"{fraction:<5g} {name:24s} {elapsed:7.2f}  {peak:8.1f}  {entropy:7.4f}  "
                f"{alignment:9.4f}  {norms[at].mean():9.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
