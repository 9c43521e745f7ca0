"""What an audit finds of planted wrong labels and planted copies, and how long it takes.

    python benchmarks/audit.py --images photos/train --network cnn5 --share 0.03 --noise confused \
        --work /tmp/audited --out benchmarks/records/DATE-audit-photos

`--images` is a folder of class folders or a tar of them. Wrong labels are symmetric (any other
class) or between the classes that a first audit of the clean data confuses most; 2% of the images
get an exact and 2% a near copy (rescaled, recompressed, cropped by some pixels), under the
label that they were given. Rankings are compared on the same probabilities; tests/audit holds that
margin and loss are cleanlab's normalized_margin and self_confidence, whose rows would be these.
"""

import argparse
import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from recording import Record
from sklearn.metrics import average_precision_score, roc_auc_score

from raygrad import cli

ENDINGS = (".jpg", ".jpeg", ".png")


def pictures(place: Path, most: int | None) -> Iterator[tuple[str, Image.Image]]:
    """Yields class and picture of a folder of class folders, or of a tar of one, in its order."""
    if place.is_dir():
        paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in ENDINGS)
        for path in paths[:most]:
            yield path.parent.name, Image.open(path).convert("RGB")
        return
    with tarfile.open(place) as tar:
        members = [m for m in tar if m.isfile() and m.name.lower().endswith(ENDINGS)]
        for member in members[:most]:
            data = tar.extractfile(member)
            assert data is not None
            yield member.name.split("/")[-2], Image.open(io.BytesIO(data.read())).convert("RGB")


def near_copy(image: Image.Image, kind: int, rng: np.random.Generator) -> Image.Image:
    """Returns a picture rescaled, recompressed or cropped by up to 3% a side."""
    if kind == 0:
        scale = rng.uniform(0.6, 1.4)
        size = [max(8, round(side * scale)) for side in image.size]
        return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    if kind == 1:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=int(rng.integers(30, 80)))
        return Image.open(out).convert("RGB")
    left, top, right, bottom = rng.integers(0, max(2, round(0.03 * min(image.size))) + 1, 4)
    return image.crop((left, top, image.width - right, image.height - bottom))


def wrong_labels(
    labels: NDArray[np.int64], share: float, partners: NDArray[np.int64] | None, seed: int
) -> NDArray[np.int64]:
    """Returns labels of which a share is another class: any, or each class's own partner."""
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    changed, classes = labels.copy(), int(labels.max()) + 1
    if partners is None:
        changed[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    else:
        changed[wrong] = partners[labels[wrong]]
    return changed


def plant(args: argparse.Namespace, out: Path, partners: NDArray[np.int64] | None) -> list[str]:
    """Writes the pictures with wrong labels and copies; a name tells what was done to it.

    `<number>-<class>` is a picture with its true class; `-exact` and `-near` end its copies.
    """
    found = list(pictures(Path(args.images), args.most))
    names = sorted({name for name, _ in found})
    labels = np.array([names.index(name) for name, _ in found])
    share = args.share if partners is not None or args.noise == "symmetric" else 0.0
    given = wrong_labels(labels, share, partners, args.seed)
    rng = np.random.default_rng(args.seed + 1)
    copied = rng.permutation(len(found))[: 2 * round(args.copies * len(found))]
    for at, (_, image) in enumerate(found):
        folder = out / names[given[at]]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{at:06d}-{labels[at]}.png")
    for place, at in enumerate(copied.tolist()):
        exact = place % 2 == 0
        copy = found[at][1] if exact else near_copy(found[at][1], place // 2 % 3, rng)
        kind = "exact" if exact else "near"
        copy.save(out / names[given[at]] / f"{at:06d}-{labels[at]}-{kind}.png")
    return names


def audited(args: argparse.Namespace, folder: Path, run: Path) -> float:
    """Audits by the command; returns the seconds from start to end."""
    start = time.perf_counter()
    status = cli.main(
        ["audit", str(folder), "--run", str(run), "--network", args.network, *args.flags.split()]
    )
    assert status == 0, f"the audit ended with {status}"
    return time.perf_counter() - start


def confused(run: Path, names: list[str]) -> NDArray[np.int64]:
    """Returns for each class the one that the network takes it for most, in the order of names."""
    rows = pq.read_table(run / "audit" / "labels.parquet").to_pylist()
    counts = np.zeros((len(names), len(names)))
    for row in rows:
        counts[names.index(row["label_name"]), names.index(row["suggested_name"])] += 1
    np.fill_diagonal(counts, -1)
    return counts.argmax(axis=1)


def label_rows(run: Path, names: list[str]) -> list[dict[str, float | str]]:
    """Returns area under ROC and PR, and precision at the number planted, of each ranking."""
    rows = pq.read_table(run / "audit" / "labels.parquet").to_pylist()
    wrong = np.array(
        [row["label_name"] != names[int(row["key"].rsplit("/")[-1].split("-")[1])] for row in rows]
    )
    rankings = {
        "rank (the table's)": -np.arange(len(rows), dtype=float),
        "normalized margin": np.array([row["score"] for row in rows]),
        "loss": np.array([row["loss"] for row in rows]),
    }
    number = int(wrong.sum())
    return [
        {
            "ranking": name,
            "roc_auc": float(roc_auc_score(wrong, values)),
            "average_precision": float(average_precision_score(wrong, values)),
            "precision_at_planted": float(
                wrong[np.argsort(-values, kind="stable")[:number]].mean()
            ),
            "planted": number,
        }
        for name, values in rankings.items()
    ]


def copy_row(run: Path) -> dict[str, float]:
    """Returns precision and recall of groups against what was planted, pairs counted."""
    rows = pq.read_table(run / "audit" / "repeats.parquet").to_pylist()
    listed = pq.read_table(run / "audit" / "labels.parquet")["key"].to_pylist()
    names = {key.rsplit("/")[-1] for key in listed}
    groups: dict[int, set[str]] = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add(row["key"].rsplit("/")[-1])
    found = {}
    for kind in ("exact", "near"):
        planted = {name for name in names if name.endswith(kind)}
        hit = {n for members in groups.values() for n in members & planted
               if n.rsplit("-", 1)[0] in members}  # fmt: skip
        found[f"{kind}_recall"] = len(hit) / max(len(planted), 1)
    strange = sum(len({name.split("-")[0] for name in members}) > 1 for members in groups.values())
    # Data sets have copies of their own, which count against it here.
    found["groups_of_one_original"] = 1 - strange / max(len(groups), 1)
    return found


def main() -> None:
    """Plants, audits and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True)
    parser.add_argument("--network", default="cnn5")
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--noise", choices=("symmetric", "confused"), default="symmetric")
    parser.add_argument("--copies", type=float, default=0.02)
    parser.add_argument("--most", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", default="", help="further flags of raygrad audit")
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    work, partners = Path(args.work), None
    if args.noise == "confused":
        names = plant(args, work / "clean", None)
        audited(args, work / "clean", work / "clean-run")
        partners = confused(work / "clean-run", names)
    names = plant(args, work / "planted", partners)
    seconds = audited(args, work / "planted", work / "run")
    record = Record("Planted wrong labels and copies that raygrad audit finds", vars(args))
    for row in label_rows(work / "run", names):
        record.add(**row)
    record.add(**copy_row(work / "run"), seconds=seconds)
    record.write(f"{args.out}.json")
    for row in record.content["rows"]:
        print(row)


if __name__ == "__main__":
    main()
