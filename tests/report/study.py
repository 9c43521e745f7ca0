"""A small study of the real digits in numpy, written as the tables of a run folder.

Two networks (softmax regression, and one on fixed random features) are trained by stochastic
gradient descent; their last-layer gradient norms are exact in closed form; subsets are drawn by
those norms and the network is trained again on each. Nothing in it is made up, and none of it uses
the report's code.
"""

import io
import json
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from raygrad.data.index import Index, build_index, write_index
from raygrad.runs.score_table import write_manifest, write_part

CLASSES = 10
FRACTIONS = (0.02, 0.05, 0.1, 0.3, 1.0)
METHODS = ("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf")
NETWORKS = ("linear", "features")
COLUMN = "grad_l2_last_layer_weights"
EPOCHS = 12
DECAY_AT = 8


@dataclass
class Digits:
    """The digits, split into train, val and test by position; keys are six digits."""

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]
    split: np.ndarray
    inputs: dict[str, np.ndarray] = field(default_factory=dict)

    def rows(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.split == name)


def load(copies: int = 0) -> Digits:
    """All 1,797 digits with the inputs of both networks; the split follows the index's hash.

    Of the first ``2 * copies``, each second one gets the picture of the one before, not its label.
    """
    data = load_digits()
    images = (data.images * 15.9).astype(np.uint8)
    images[1 : 2 * copies : 2] = images[0 : 2 * copies : 2]
    n = len(images)
    place = np.random.default_rng(0).permutation(n)
    split = np.where(place < 1437, "train", "test").astype("<U5")
    flat = images.reshape(n, -1) / 255.0
    weights = np.random.default_rng(1).normal(size=(64, 96))
    features = np.maximum(flat @ weights, 0) / 3
    digits = Digits(images, data.target.astype(np.int64), [f"{i:06d}" for i in range(n)], split)
    digits.inputs = {"linear": np.c_[flat, np.ones(n)], "features": np.c_[features, np.ones(n)]}
    return digits


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def errors(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return softmax(x @ weights) - np.eye(CLASSES)[y]


def fit(x, y, seed, epochs=EPOCHS, observe=None, batch=32):
    """Softmax regression by SGD with one decay of the rate; ``observe(epoch, weights)``."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(scale=0.01, size=(x.shape[1], CLASSES))
    for epoch in range(epochs):
        rate = 0.5 if epoch < DECAY_AT else 0.05
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            part = order[start : start + batch]
            weights -= rate * x[part].T @ errors(weights, x[part], y[part]) / len(part)
        if observe is not None:
            observe(epoch + 1, weights)
    return weights


def norms(weights, x, y, order=2):
    """The exact norm of each example's gradient, an outer product: the product of two norms."""
    return np.linalg.norm(errors(weights, x, y), order, axis=1) * np.linalg.norm(x, order, axis=1)


def draw(method, scores, budget, seed):
    """Positions of a subset; a few lines of numpy, on purpose not raygrad's own."""
    rng = np.random.default_rng(1000 + seed)
    ranked = np.argsort(-scores, kind="stable")
    if method == "random":
        return rng.permutation(len(scores))[:budget]
    if method == "max_gradient":
        return ranked[:budget]
    if method == "non_extreme_max_gradient":
        drop = min(int(0.05 * len(scores)), len(scores) - budget)
        return ranked[drop : drop + budget]
    return rng.choice(len(scores), budget, replace=False, p=scores / scores.sum())


def accuracy(weights, x, y):
    return float((np.argmax(x @ weights, axis=1) == y).mean())


def cross_entropy(weights, x, y):
    return -np.log(softmax(x @ weights)[np.arange(len(y)), y] + 1e-12)


def entropy(p):
    return -(p * np.log(p + 1e-300)).sum(axis=1)


def write_parquet(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_json(value, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def write_shards(digits: Digits, data: Path) -> pa.Table:
    """Tars of PNGs and labels, four of train (with val) and one of test, and their index."""
    shard_of = np.where(digits.split == "test", 4, np.arange(len(digits.keys)) % 4)
    urls = []
    for shard in range(5):
        path = data / "shards" / f"digits-{shard:05d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for i in np.flatnonzero(shard_of == shard):
                label = str(digits.labels[i]).encode()
                for suffix, content in (("png", png(digits.images[i])), ("cls", label)):
                    member = tarfile.TarInfo(f"{digits.keys[i]}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        urls.append(str(path))
    index = build_index(urls[:4], urls[4:], val_fraction=0.1)
    rejects = pa.table({"shard": ["x"], "key": ["broken"], "reason": ["no image"]})
    write_index(str(data), Index(index.examples, index.shards, rejects))
    return index.examples


def train_network(digits: Digits, name: str, run: Path) -> np.ndarray:
    """Trains a network on the whole train split and writes metrics, probe and bound."""
    x, y = digits.inputs[name], digits.labels
    train, val, test = (digits.rows(s) for s in ("train", "val", "test"))
    chosen = np.sort(np.random.default_rng(5).permutation(train)[:512])
    history, probe, bound, followed = [], [], [], []
    rng = np.random.default_rng(6)

    def observe(epoch, weights):
        logits = x[train] @ weights
        own = logits[np.arange(len(train)), y[train]]
        others = np.where(np.eye(CLASSES, dtype=bool)[y[train]], -np.inf, logits).max(axis=1)
        followed.append((own - others, softmax(logits)[np.arange(len(train)), y[train]]))
        history.append(
            {
                "epoch": epoch,
                "learning_rate": 0.5 if epoch <= DECAY_AT else 0.05,
                "train_loss": float(cross_entropy(weights, x[train], y[train]).mean()),
                "val_loss": float(cross_entropy(weights, x[val], y[val]).mean()),
                "val_accuracy": accuracy(weights, x[val], y[val]),
                "epoch_time_s": 0.01,
            }
        )
        probe.append(
            pa.table(
                {
                    "epoch": np.full(len(chosen), epoch),
                    "key": [digits.keys[i] for i in chosen],
                    COLUMN: norms(weights, x[chosen], y[chosen]),
                    "loss": cross_entropy(weights, x[chosen], y[chosen]),
                }
            )
        )
        for batch in range(20):
            part = rng.choice(train, 32, replace=False)
            summed = x[part].T @ errors(weights, x[part], y[part])
            bound.append(
                {
                    "epoch": epoch,
                    "batch": batch,
                    "norm_of_sum": float(np.linalg.norm(summed)),
                    "sum_of_norms": float(norms(weights, x[part], y[part]).sum()),
                }
            )

    weights = fit(x[train], y[train], seed=0, observe=observe)
    write_json(
        {
            "network": name,
            "num_parameters": int(weights.size),
            "world_size": 1,
            "num_train": len(train),
            "num_val": len(val),
            "num_test": len(test),
            "best_epoch": EPOCHS,
            "epochs": EPOCHS,
            "val_accuracy": accuracy(weights, x[val], y[val]),
            "val_loss": float(cross_entropy(weights, x[val], y[val]).mean()),
            "test_accuracy": accuracy(weights, x[test], y[test]),
            "test_loss": float(cross_entropy(weights, x[test], y[test]).mean()),
            "train_time_s": 0.5,
            "history": history,
        },
        run / "train" / name / "metrics.json",
    )
    write_parquet(pa.concat_tables(probe), run / "train" / name / "probe.parquet")
    margins, probabilities = (np.stack(part) for part in zip(*followed, strict=True))
    dynamics = {
        "key": [digits.keys[i] for i in train],
        "aum": -margins.mean(axis=0),
        "dyn_unc": probabilities.std(axis=0),
    }
    write_parquet(pa.table(dynamics), run / "train" / name / "dynamics.parquet")
    write_parquet(pa.Table.from_pylist(bound), run / "train" / name / "bound.parquet")
    return weights


def write_scores(
    digits: Digits, name: str, weights: np.ndarray, index: pa.Table, run: Path
) -> None:
    """Score parts, one a shard of the train split, and their manifest."""
    x, y = digits.inputs[name], digits.labels
    folder = run / "scores" / name
    rows = [r for r in index.to_pylist() if r["split"] == "train"]
    provenance = {"network": name, "checkpoint": f"digest-of-{name}", "transform": "none"}
    for shard in sorted({r["shard"] for r in rows}):
        at = np.array([int(r["key"]) for r in rows if r["shard"] == shard])
        guess = np.argmax(x[at] @ weights, axis=1)
        table = pa.table(
            {
                "key": [digits.keys[i] for i in at],
                "shard": [shard] * len(at),
                "label": y[at],
                COLUMN: norms(weights, x[at], y[at]),
                "grad_l1_last_layer_weights": norms(weights, x[at], y[at], 1),
                "loss": cross_entropy(weights, x[at], y[at]),
                "el2n": np.linalg.norm(errors(weights, x[at], y[at]), axis=1),
                "entropy": entropy(softmax(x[at] @ weights)),
                "prediction": guess,
                "correct": guess == y[at],
            }
        )
        write_part(str(folder), shard, table, provenance)
    write_manifest(str(folder), sorted({r["shard"] for r in rows}), provenance, 1.0)


def retrain(digits, name, weights, method, fraction, seed, protocol, subsets):
    """One trial: draw, train from a fresh start, test; a row of the results."""
    x, y = digits.inputs[name], digits.labels
    train, val, test = (digits.rows(s) for s in ("train", "val", "test"))
    budget = max(1, round(fraction * len(train)))
    chosen = train[draw(method, norms(weights, x[train], y[train]), budget, seed)]
    if fraction < 1:
        kept = pa.table({"key": [digits.keys[i] for i in chosen]})
        write_parquet(kept, subsets / f"{method}-{fraction:g}-{seed}.parquet")
    epochs = EPOCHS if protocol == "equal_epochs" else min(round(EPOCHS / fraction), 200)
    start = time.perf_counter()
    fitted = fit(x[chosen], y[chosen], seed=seed, epochs=epochs)
    train_time_s = time.perf_counter() - start
    return {
        "trial": f"{name}-{method}-{fraction}-{seed}-{protocol}",
        "network": name,
        "score_network": name,
        "score_column": COLUMN,
        "method": method,
        "keep_fraction": float(fraction),
        "budget": budget,
        "seed": seed,
        "subset_seed": seed,
        "init_seed": seed,
        "order_seed": seed,
        "protocol": protocol,
        "test_accuracy": accuracy(fitted, x[test], y[test]),
        "val_accuracy": accuracy(fitted, x[val], y[val]),
        "test_loss": float(cross_entropy(fitted, x[test], y[test]).mean()),
        "val_loss": float(cross_entropy(fitted, x[val], y[val]).mean()),
        "best_epoch": epochs - 1,
        "epochs": epochs,
        "steps": epochs * -(-budget // 32),
        "examples_seen": epochs * budget,
        "train_time_s": train_time_s,
        "device": "cpu",
        "subset_digest": f"{method}-{fraction}-{seed}",
        "config_digest": "d1",
    }


def write_run(
    run: Path,
    networks=NETWORKS,
    seeds=(0, 1, 2),
    protocols=("equal_epochs", "equal_steps"),
    name="digits",
    copies=0,
) -> Path:
    """The whole study as a run folder; its subsets are those of the network that comes first."""
    digits = load(copies)
    index = write_shards(digits, run / "data")
    digits.split[[int(k) for k in index["key"].to_pylist()]] = index["split"].to_pylist()
    counts = {s: len(digits.rows(s)) for s in ("train", "val", "test")}
    write_json(
        {
            "name": name,
            "classes": [str(c) for c in range(CLASSES)],
            "channels": 1,
            "image_size": [8, 8],
            "source": "digits",
            "counts": counts,
        },
        run / "data" / "shards" / "dataset.json",
    )
    write_json({"data": {"source": "digits"}, "train": {"seed": 0}}, run / "config.json")
    rows = []
    for network in networks:
        weights = train_network(digits, network, run)
        subsets = run / "subsets" / ("" if network == sorted(networks)[0] else network)
        write_scores(digits, network, weights, index, run)
        for protocol in protocols:
            for method in METHODS:
                for fraction in FRACTIONS:
                    if fraction == 1.0 and (method != "random" or protocol != "equal_epochs"):
                        continue
                    rows += [
                        retrain(digits, network, weights, method, fraction, seed, protocol, subsets)
                        for seed in seeds
                    ]
    write_parquet(pa.Table.from_pylist(rows), run / "sweep" / "results.parquet")
    return run
