"""MNIST by several scoring networks: each one's subsets are retrained on, at the paper's shares.

    python benchmarks/mnist_replicates.py --data-dir DIR --work DIR --out RECORD.json

The scoring networks are trained for 10 epochs (the paper's 50 take hours on two cores), the
networks that are retrained by the recipe mnist/cnn: 50 epochs, as the paper's. The same command
goes on where it was stopped. `python -m benchmarks.study_record --run WORK/study --out FOLDER`
then writes the tables of the record.
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from recording import Record

from raygrad.config import DataConfig, ScoreConfig, SelectConfig, StudyConfig
from raygrad.engine.session import session
from raygrad.pipeline.binding import bound
from raygrad.pipeline.preparing import prepare
from raygrad.pipeline.study import report
from raygrad.pipeline.sweeping import sweep
from raygrad.training.recipes import recipe

RECIPE = replace(recipe("mnist", "cnn"), validation_steps=50)
"""Small subsets have epochs of a few steps, whose validation would be most of what they cost."""
COLUMNS = (
    "grad_l2_last_layer_weights grad_l2_weights grad_l2_all loss el2n margin entropy "
    "least_confidence"
)


def main() -> None:
    """Trains and scores the scoring networks, then retrains on what each of them chooses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="holds MNIST's own files")
    parser.add_argument("--work", required=True, help="folder of both run folders")
    parser.add_argument("--score-seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--keep", nargs="+", type=float, default=[175 / 54_000, 0.01, 0.03])
    parser.add_argument("--out", default="mnist-replicates.json", help="the record")
    args = parser.parse_args()
    nets, seeds = Path(args.work) / "nets", args.score_seeds
    train = "--recipe mnist/cnn --epochs 10 --lr-decay-epochs 6 --bound-epochs 1 5 10"
    raygrad("prepare", "mnist", "--data-dir", args.data_dir, "--shard-bytes", "1048576", run=nets)
    raygrad("train", *train.split(), "--score-seeds", *seeds, run=nets)
    raygrad("score", "--score-seeds", *seeds, "--columns", *COLUMNS.split(), run=nets)
    data = DataConfig(source="mnist", data_dir=args.data_dir, shard_bytes=2**20)
    select = SelectConfig(
        methods=("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf"),
        keep_fractions=tuple(args.keep),
        seeds=(0,),
        score_seeds=tuple(map(int, seeds)),
        score_run=str(nets),
    )
    columns = tuple(COLUMNS.split())
    config = replace(
        StudyConfig(str(Path(args.work) / "study"), data=data, train=RECIPE),
        score=ScoreConfig(columns=columns),
        select=select,
    )
    with bound(config, redo=False), session():
        prepare(config)
        results = sweep(config)
    report(config)
    record = Record("MNIST, retrained on what several scoring networks choose", vars(args))
    for row in results.to_pylist():
        record.add(**row)
    record.write(args.out)


def raygrad(stage: str, *words: str, run: Path) -> None:
    """Runs a stage of the command, which skips what is complete."""
    command = [sys.executable, "-m", "raygrad", stage, *words, "--run", str(run)]
    subprocess.run([*command, "--wait-s", "inf"] if stage != "prepare" else command, check=True)


if __name__ == "__main__":
    main()
