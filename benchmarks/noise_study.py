"""Wrong labels planted in CIFAR-10: what scores find, what selectors keep, what cleaning gives.

    python -m benchmarks.noise_study --data cifar10-jpeg.tar --work WORK --minutes 120

A unit is a kind of error and a seed: a tenth of the training labels is changed (validation's too,
as nobody would know), a network is trained on that and scores it, selectors draw from the scores,
and networks are retrained on the rest that each way of cleaning leaves. The test set is clean, and
looked at in the end alone. Each unit is kept as a JSON beneath `records/kept/noise` and not made
again; time being up, no further unit is begun. `noise_record.py` makes the record of them.
"""

import argparse
import json
import os
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score

from benchmarks.planting import true_class, wrong_labels
from benchmarks.recording import machine
from raygrad.config import DataConfig, ScoreConfig, StudyConfig, SweepConfig
from raygrad.engine.session import session
from raygrad.pipeline.binding import bound
from raygrad.pipeline.preparing import prepare
from raygrad.pipeline.scoring import score
from raygrad.pipeline.sweeping import sweep
from raygrad.pipeline.training import train
from raygrad.runs import score_table
from raygrad.runs.journal import read_journal, wall_s
from raygrad.runs.layout import RunLayout
from raygrad.selection.drawing import draw
from raygrad.storage import files
from raygrad.training.recipes import recipe

NORM = "grad_l2_last_layer_weights"
COLUMNS = (NORM, "grad_l2_weights", "loss", "el2n", "margin")
LOW_IS_WRONG = ("mean_probability",)
"""Columns that are small where an example is hard; of all others the largest are hardest."""
SHARES = (0.1, 0.3, 0.5, 0.8)
"""Of what selectors keep."""
SELECTORS = {
    "random": NORM,
    "max_gradient": NORM,
    "non_extreme_max_gradient": NORM,
    "gradient_cdf": NORM,
    "easiest": NORM,
    "ccs": "aum",
    "dual_beta": "dual",
}
"""Selectors that are looked into, with the column that each draws by."""
TAKEN_FOR = {
    "airplane": "ship", "automobile": "truck", "bird": "airplane", "cat": "dog", "deer": "horse",
    "dog": "cat", "frog": "deer", "horse": "deer", "ship": "airplane", "truck": "automobile",
}  # fmt: skip
"""The class that each class's wrong labels name, where errors are between confused classes."""
KINDS = ("symmetric", "confused")
WRONG = 0.1
"""The share of labels that are changed."""


@dataclass(frozen=True)
class Unit:
    """One kind of error and one seed: of the errors, the networks, the draws."""

    kind: str
    seed: int
    per_class: int
    """Training images of each class."""

    @property
    def name(self) -> str:
        """Of its folders and files."""
        return f"{self.kind}-{self.seed}"


def plant(archive: Path, out: Path, unit: Unit) -> None:
    """Writes class folders of the training images, some in a wrong one, and of all test images.

    A file is named `<number>-<true class>`, so that what was done can be read from its key.

    Args:
        archive: A tar of `train/CLASS/FILE` and `test/CLASS/FILE`.
        out: The folder; not there yet.
        unit: Which errors.
    """
    half, images = out.with_suffix(".part"), list[tuple[str, bytes, str]]()
    num_of = Counter[str]()
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            if not member.isfile():
                continue
            split, name, file = PurePath(member.name).parts
            if split == "train" and num_of[name] >= unit.per_class:
                continue
            num_of[name] += split == "train"
            content = tar.extractfile(member)
            assert content is not None
            if split == "train":
                images.append((name, content.read(), PurePath(file).suffix))
            else:
                _write(half / "test" / name / file, content.read())
    names = sorted(num_of)
    labels = np.array([names.index(name) for name, _, _ in images])
    partners = np.array([names.index(TAKEN_FOR[name]) for name in names])
    changed = wrong_labels(labels, WRONG, None if unit.kind == "symmetric" else partners, unit.seed)
    for at, ((name, data, ending), label) in enumerate(zip(images, changed.tolist(), strict=True)):
        _write(half / "train" / names[label] / f"{at:06d}-{name}{ending}", data)
    half.rename(out)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def config_of(unit: Unit, work: Path) -> StudyConfig:
    """Returns how networks of a unit are trained and scored: the fast recipe."""
    # Dynamics give forgetting, AUM and DUAL; what else is watched would be time alone.
    fast = replace(
        recipe("cifar10", "airbench94"), numerics="bf16", probe_size=0, bound_epochs=(),
        seed=unit.seed, num_workers=1, cpus_per_worker=2,
    )  # fmt: skip
    return StudyConfig(
        str(work / unit.name),
        data=DataConfig("image-folder", data_dir=str(work / f"{unit.name}-images")),
        train=fast,
        score=ScoreConfig(columns=COLUMNS, batch_size=250),
        sweep=SweepConfig(cpus_per_worker=2.0),
    )


def run(unit: Unit, archive: Path, work: Path) -> dict[str, Any]:
    """Does a unit, or goes on with it; returns what it came to."""
    config = config_of(unit, work)
    assert config.data.data_dir is not None
    images, layout = Path(config.data.data_dir), RunLayout(config.run)
    if not images.exists():
        plant(archive, images, unit)
    with bound(config), session():
        prepare(config)
        train(config)
        score(config)
        scores = scores_of(layout, config.train.network)
        wrong = is_wrong(scores)
        subsets = write_cleaned(scores, wrong, work / f"{unit.name}-subsets", unit.seed)
        rows = sweep(config, subsets).to_pylist()
    return {
        "kind": unit.kind,
        "seed": unit.seed,
        "examples": len(scores),
        "wrong": int(wrong.sum()),
        "machine": machine(),
        "wall_s": wall_s(read_journal(layout.journal)),  # over all starts, what was killed too
        "network": json.loads(Path(layout.metrics(config.train.network)).read_text()),
        "found": list(found(scores, wrong)),
        "kept": list(kept(scores, wrong, unit.seed)),
        "trials": rows,
    }


def scores_of(layout: RunLayout, network: str) -> pd.DataFrame:
    """Returns the scores of a network and of how it learned, a row an example, by key."""
    table = score_table.read_score_table(layout.scores(network)).to_pandas()
    learned = score_table.read_score_table(layout.scores(f"{network}-dynamics")).to_pandas()
    learned = learned.drop(columns=[name for name in learned if name in table and name != "key"])
    return table.merge(learned, on="key", validate="one_to_one").sort_values("key")


def is_wrong(scores: pd.DataFrame) -> NDArray[np.bool_]:
    """Returns which labels were changed, `[N]`; labels count the sorted classes."""
    names = sorted(TAKEN_FOR)
    return np.array(
        [
            names[label] != true_class(key)
            for key, label in zip(scores.key, scores.label, strict=True)
        ]
    )


def found(scores: pd.DataFrame, wrong: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """Yields how well each column finds the wrong labels.

    `auc` is the chance that a wrong label stands before a right one, ties counted half;
    `precision` is of as many as are wrong.
    """
    for name in scores.columns.drop(["key", "shard", "label", "prediction", "correct"], "ignore"):
        values = scores[name].to_numpy(dtype=np.float64)
        values = -values if name in LOW_IS_WRONG else values
        if name == "forgetting":  # infinite where it was never learned
            values = np.minimum(values, values[np.isfinite(values)].max() + 1)
        area = mannwhitneyu(values[wrong], values[~wrong]).statistic
        first = np.argsort(-values, kind="stable")[: wrong.sum()]
        yield {
            "score": name,
            "auc": float(area / wrong.sum() / (~wrong).sum()),
            "average_precision": float(average_precision_score(wrong, values)),
            "precision": float(wrong[first].mean()),
        }


def kept(scores: pd.DataFrame, wrong: NDArray[np.bool_], seed: int) -> Iterator[dict[str, Any]]:
    """Yields the share of wrong labels in what each selector keeps."""
    keys = scores.key.tolist()
    for method, column in SELECTORS.items():
        values = scores[column].to_numpy(dtype=np.float64)
        for share in SHARES:
            given = {"dual": values, "mean_probability": scores.mean_probability.to_numpy()}
            of = draw(
                method,
                given if method == "dual_beta" else values,
                keys,
                round(share * len(keys)),
                seed=seed,
            )
            yield {
                "method": method,
                "column": column,
                "keep_fraction": share,
                "wrong_share": float(wrong[of].mean()),
                "wrong_kept": float(wrong[of].sum() / wrong.sum()),
            }


def write_cleaned(
    scores: pd.DataFrame, wrong: NDArray[np.bool_], folder: Path, seed: int
) -> list[str]:
    """Writes the subsets that are retrained on; returns their files.

    Each way of cleaning leaves out as many as are wrong: the largest gradient norms, the smallest
    areas under the margin, at random, or those that are wrong indeed. `all_data` is
    everything.
    """
    num, count = len(scores), len(scores) - int(wrong.sum())
    norm, aum = scores[NORM].to_numpy(), scores.aum.to_numpy()
    ways = {
        "all_data": np.arange(num),
        "random_rest": np.random.default_rng(seed).permutation(num)[:count],
        "cleaned_by_norm": np.argsort(norm, kind="stable")[:count],
        "cleaned_by_aum": np.argsort(aum, kind="stable")[:count],
        "truth": np.flatnonzero(~wrong),
    }
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, of in ways.items():
        path = folder / f"{name}-{seed}.parquet"
        pq.write_table(pa.table({"key": scores.key.to_numpy()[np.sort(of)]}), path)
        made.append(str(path))
    return made


def main() -> int:
    """Does the units that are missing, until time is up; returns 3 where some are left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the tar of CIFAR-10's images")
    parser.add_argument("--work", type=Path, required=True, help="holds images and run folders")
    parser.add_argument("--minutes", type=float, default=120.0, help="then no unit is begun")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--per-class", type=int, default=1000, help="training images")
    kept_in = Path(__file__).parent / "records" / "kept" / "noise"
    parser.add_argument("--kept", type=Path, default=kept_in)
    args = parser.parse_args()
    ends_s = time.monotonic() + 60 * args.minutes
    args.kept.mkdir(parents=True, exist_ok=True)
    units = [Unit(kind, seed, args.per_class) for seed in args.seeds for kind in args.kinds]
    for unit in units:
        path = args.kept / f"{unit.name}.json"
        if path.exists():
            continue
        if time.monotonic() > ends_s:
            print(f"{unit.name}: not begun, time is up", flush=True)
            return 3
        print(f"{unit.name}: begins", flush=True)
        out = run(unit, args.data, args.work)
        text = json.dumps(out, indent=1, default=str)
        files.write_bytes(str(path), text.replace(f"{args.work}{os.sep}", "").encode())
        print(f"{unit.name}: done in {out['wall_s']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
