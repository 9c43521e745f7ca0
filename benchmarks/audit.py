"""What an audit finds of planted wrong labels and planted copies, and how long it takes.

    python benchmarks/audit.py --images imagenette160.tar --backbone --work /tmp/audited \
        --record benchmarks/records/DATE-audit-photos.json

2% of the pictures get an exact and 2% a near copy (rescaled, compressed again, cropped by some
pixels); the folder is audited by the command, which is timed, and what it calls copies is held
against what was planted, beside imagededup's perceptual hash. Then labels are made wrong,
symmetrically or towards the class that the audit of the clean data confuses each with most, and
the pipeline judges again; rankings are compared beside cleanlab's Datalab on the same
probabilities. `pip install --no-deps cleanlab imagededup datasets ...` where they are wanted.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from audit_backbone import weights
from numpy.typing import NDArray
from planting import WAYS, original, pictures, plant_copies, true_class, wrong_labels
from recording import Record
from sklearn.metrics import average_precision_score, roc_auc_score

from raygrad import cli
from raygrad.audit import confident
from raygrad.config.auditing import AuditConfig
from raygrad.data.index import Index, read_index
from raygrad.pipeline import preparing
from raygrad.pipeline.audit_findings import Repeats, find_repeats, label_table
from raygrad.pipeline.audit_judging import Judgement, judge
from raygrad.pipeline.audit_looking import Seen, look
from raygrad.storage.manifest import digest

COPIES_SEED = 1
BACKBONE = "audit_backbone:lite0"


@dataclass(frozen=True)
class Audited:
    """An audit of clean labels, whose looks the judgements of wrong ones share."""

    options: AuditConfig
    network: str
    index: Index
    seen: Seen
    repeats: Repeats
    names: list[str]
    steps: Path


def options_of(args: argparse.Namespace) -> AuditConfig:
    """Returns what the command is told, by its flags' names."""
    if args.backbone:
        return AuditConfig(
            network=BACKBONE,
            checkpoint=str(weights()),
            num_classes=1000,
            image_size=args.image_size or 160,
        )
    return AuditConfig(network=args.network, image_size=args.image_size, epochs=args.epochs)


def audited(args: argparse.Namespace, folder: Path, run: Path) -> tuple[Audited, float, float]:
    """Audits by the command; returns what it saw, seconds from start to end, and CPU seconds."""
    options = options_of(args)
    flags = ["--network", str(options.network), "--epochs", str(options.epochs)]
    if options.checkpoint is not None:
        flags += ["--checkpoint", options.checkpoint, "--num-classes", str(options.num_classes)]
    if options.image_size is not None:
        flags += ["--image-size", str(options.image_size)]
    start, cpu = time.perf_counter(), time.process_time()
    status = cli.main(["audit", str(folder), "--run", str(run), *flags])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert status == 0, f"the audit ended with {status}"
    index, steps = read_index(str(run / "data")), run / "audit" / "steps"
    seen = look(index, 3, None, str(next(steps.glob("look-*"))))
    names = list(index.classes)
    found = Audited(options, args.network, index, seen, find_repeats(seen), names, steps)
    return found, seconds, cpu


def judged(of: Audited, labels: NDArray[np.int64]) -> tuple[Judgement, pa.Table]:
    """Returns what the audit says where labels are these, and its table, as the command does."""
    column = of.seen.rows.column_names.index("label")
    rows = of.seen.rows.set_column(column, "label", pa.array(labels))
    seen = replace(of.seen, rows=rows)
    said = _judgement(of, seen)
    facts = rows.select(["key", "shard", "split", "label"])
    table, _ = label_table(facts, said, of.names)
    return said, table


def _judgement(of: Audited, seen: Seen) -> Judgement:
    """Returns what heads or trainings say; heads too are kept, as the audit keeps trainings."""
    heads = of.options.checkpoint is not None
    kept = of.steps / f"heads-{digest(seen.rows['label'].to_pylist())[:12]}.npy"
    if heads and kept.exists():
        spaces = np.zeros(len(seen.features), np.int64)
        return Judgement(np.load(kept), seen.features, spaces, "linear heads, kept")
    groups, number = of.repeats.groups, len(of.names)
    network = BACKBONE if heads else of.network
    said = judge(of.options, network, of.index, seen, groups, number, 3, str(of.steps))
    if heads:
        np.save(kept, said.probabilities)
    return said


def confused(of: Audited) -> NDArray[np.int64]:
    """Returns for each class the one that the network takes it for most."""
    said, _ = judged(of, of.seen.rows["label"].to_numpy())
    labels = of.seen.rows["label"].to_numpy()
    counts = np.zeros((len(of.names), len(of.names)))
    np.add.at(counts, (labels, said.probabilities.argmax(1)), 1)
    np.fill_diagonal(counts, -1)
    return counts.argmax(axis=1)


def noisy(of: Audited, share: float, partners: NDArray[np.int64] | None, seed: int) -> NDArray:
    """Returns labels, of which a share is wrong; copies are labelled as their pictures are."""
    numbers = np.array([original(key) for key in of.seen.rows["key"].to_pylist()])
    labels = of.seen.rows["label"].to_numpy()
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    drawn = seed + (seed >= COPIES_SEED)  # not as the copies were: it would be the same pictures
    return wrong_labels(labels[first], share, partners, drawn)[place]


def rankings(
    said: Judgement, table: pa.Table, of: Audited, labels: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.bool_] | None]]:
    """Yields name, values (higher = likelier wrong) and what it calls wrong, in the seen order."""
    place = {key: at for at, key in enumerate(table["key"].to_pylist())}
    at = np.array([place[key] for key in of.seen.rows["key"].to_pylist()])
    names = ("rank", "margin", "loss", "gradient_norm", "aum", "suspect")
    column = {name: np.asarray(table[name].to_numpy(zero_copy_only=False))[at] for name in names}
    p = said.probabilities
    suspect = column["suspect"].astype(bool)
    yield "the table's rank", -column["rank"].astype(float), suspect
    yield "tempered odds", confident.tempered_odds(p, labels), None
    yield "noise odds", confident.noise_odds(p, labels), None
    yield "log odds", confident.log_odds(p, labels), None
    yield "margin", column["margin"], None
    yield "loss (self-confidence)", column["loss"], None
    thresholds = confident.class_thresholds(p, labels)
    yield "margin less thresholds", confident.threshold_margin(p, labels, thresholds), None
    yield "gradient norm of the last layer", column["gradient_norm"], None
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(1)
    yield "loss times confidence", column["loss"] / np.maximum(entropy, 1e-3), None
    aum = column["aum"].astype(float)
    if np.isfinite(aum).any():
        aum = np.nan_to_num(aum, nan=float(np.nanmin(aum)))  # last, as in the table
        yield "aum", aum, None
        mean = _places(aum) + _places(column["margin"])
        yield "aum and margin, mean of ranks", mean, None
    yield from _datalab(p, labels)


def _places(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)


def _datalab(p: NDArray, labels: NDArray) -> Iterator[tuple[str, NDArray, NDArray]]:
    try:
        from cleanlab import Datalab
    except ImportError:
        return
    lab = Datalab(data={"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=p.astype(np.float64), issue_types={"label": {}})
    found = lab.get_issues("label")
    wrong = found["is_label_issue"].to_numpy()
    score = -found["label_score"].to_numpy()
    yield "Datalab's score", score, wrong
    yield "Datalab's issues first", _places(score) + len(p) * wrong, wrong


def label_rows(
    of: Audited, args: argparse.Namespace, done: set[tuple[object, ...]]
) -> Iterator[dict[str, object]]:
    """Yields a row a kind, share, seed and ranking, but of those that are done."""
    partners = confused(of)
    truth = of.seen.rows["label"].to_numpy()
    for noise in args.noises:
        for share in args.shares:
            for seed in range(args.seeds):
                if (noise, share, seed) in done:
                    continue
                labels = noisy(of, share, partners if noise == "confused" else None, seed)
                wrong = labels != truth
                said, table = judged(of, labels)
                for name, values, flagged in rankings(said, table, of, labels):
                    order = np.argsort(-values, kind="stable")
                    row = {
                        "noise": noise,
                        "share": share,
                        "seed": seed,
                        "ranking": name,
                        "average_precision": float(average_precision_score(wrong, values)),
                        "roc_auc": float(roc_auc_score(wrong, values)),
                        "precision_at_planted": float(wrong[order[: wrong.sum()]].mean()),
                    }
                    if flagged is not None:
                        hit = int((flagged & wrong).sum())
                        row["flagged"] = int(flagged.sum())
                        row["flagged_precision"] = hit / max(int(flagged.sum()), 1)
                        row["flagged_recall"] = hit / int(wrong.sum())
                    yield row


def copy_rows(of: Audited, folder: Path, hashed: bool) -> Iterator[dict[str, object]]:
    """Yields what is called copies against what was planted, of each way of finding them."""
    keys = [key.rsplit("/", 1)[-1] for key in of.seen.rows["key"].to_pylist()]
    groups = of.repeats.groups
    members: dict[int, list[str]] = {}
    for at in np.flatnonzero(groups >= 0):
        members.setdefault(int(groups[at]), []).append(keys[at])
    joined = {(a, b) for some in members.values() for a in some for b in some if a < b}
    yield {"copies by": "raygrad", **against_planted(joined, keys)}
    if not hashed:
        return
    from imagededup.methods import PHash

    paths = {path.stem: path for path in folder.rglob("*.*")}
    codes = np.array([int(PHash().encode_image(str(paths[key])), 16) for key in keys], np.uint64)
    for at_most in (0, 4, 10):
        pairs = hashed_pairs(codes, keys, at_most)
        yield {"copies by": f"imagededup PHash, {at_most} bits", **against_planted(pairs, keys)}


def hashed_pairs(codes: NDArray[np.uint64], keys: list[str], at_most: int) -> set[tuple[str, str]]:
    """Returns the pairs whose codes differ in so few bits, which imagededup takes minutes for."""
    found = set()
    for at, code in enumerate(codes[:-1]):
        near = np.flatnonzero(np.bitwise_count(codes[at + 1 :] ^ code) <= at_most) + at + 1
        found |= {(min(keys[at], keys[j]), max(keys[at], keys[j])) for j in near}
    return found


def against_planted(pairs: set[tuple[str, str]], keys: list[str]) -> dict[str, object]:
    """Returns precision and recall of pairs: right are those of one picture.

    Pictures that were copies before anything was planted count against it.
    """
    right = {pair for pair in pairs if original(pair[0]) == original(pair[1])}
    plain = {original(key): key for key in keys if key.count("-") == 1}
    near = {(a, b) for a, b in pairs if "exact" not in a + b}
    row: dict[str, object] = {
        "pairs": len(pairs),
        "precision": len(right) / max(len(pairs), 1),
        "near_precision": len(near & right) / max(len(near), 1),
        "strangers": sorted(pairs - right)[:40],
    }
    for kind in ("exact", "near", *WAYS):
        planted = [key for key in keys if kind in key.split("-")[2:]]
        hit = sum((plain[original(key)], key) in pairs for key in planted)
        row[f"{kind}_recall"] = hit / max(len(planted), 1)
    row["planted_near"] = sum(key.endswith("near") for key in keys)
    return row


def main() -> None:
    """Plants, audits and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--backbone", action="store_true", help="heads on audit_backbone's network")
    parser.add_argument("--network", default="cnn5", help="is trained, without --backbone")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--epochs", type=int, default=AuditConfig.epochs)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03, 0.1])
    parser.add_argument("--noises", nargs="*", default=["symmetric", "confused"])
    parser.add_argument("--copies", type=float, default=0.02)
    parser.add_argument("--most", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--hashed", action="store_true", help="imagededup beside")
    parser.add_argument("--here", action="store_true", help="prepare without Ray, one by one")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    args = parser.parse_args()
    if args.here:
        preparing.ensure_ray = lambda: None
        preparing.wait_for = lambda *_: None
        preparing.parallel.ray_map = preparing.parallel.few_here = lambda do, items, **_: map(
            do, items
        )
    folder = args.work / "images"
    if not folder.exists():
        plant_copies(pictures(args.images, args.most), args.work / "part", args.copies, COPIES_SEED)
        os.replace(args.work / "part", folder)
    run = args.work / "run"
    begun = run.exists()  # what an interrupted call did is not done again, and its time not known
    found, seconds, cpu = audited(args, folder, run)
    before = json.loads(args.record.read_text())["rows"] if args.record.exists() else []
    record = Record("Planted wrong labels and copies that raygrad audit finds", vars(args))
    record.content["rows"] = before
    done = {(row["noise"], row["share"], row["seed"]) for row in before if row["what"] == "labels"}
    record.write(args.record)
    if not before:
        table = pq.read_table(run / "audit" / "labels.parquet")
        right = np.mean(table["label"].to_numpy() == table["suggested"].to_numpy())
        record.add(what="time", images=found.seen.rows.num_rows, seconds=seconds, cpu_seconds=cpu,
                   continued=begun, agrees=float(right), near=found.repeats.notes)  # fmt: skip
        print(record.content["rows"][-1])
    looked = any(row["what"] == "copies" for row in before)
    for row in () if looked else copy_rows(found, folder, args.hashed):
        record.add(what="copies", **row)
        print({name: value for name, value in row.items() if name != "strangers"})
    for row in label_rows(found, args, done):
        record.add(what="labels", **row)
        print({name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()})
    assert all(true_class(key) in found.names for key in found.seen.rows["key"].to_pylist())


if __name__ == "__main__":
    main()
