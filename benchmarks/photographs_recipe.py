"""How the recipe of the photographs' study was chosen: candidates, judged on what they do not see.

    python -m benchmarks.photographs_recipe --data DIR --work WORK --threads 1

Each candidate trains a network on a share of the training images, drawn at random, its epoch is
chosen on the validation images, and the training images that it did not see judge it: there are
more of them than of the 280 for validation, so less of a difference is luck. The test set is never
looked at. What is finished in WORK is not trained again.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept_table import PHOTOGRAPHS
from benchmarks.recording import recorded
from raygrad.config import TrainConfig
from raygrad.data.index import read_index
from raygrad.engine.session import session
from raygrad.pipeline.binding import bound
from raygrad.pipeline.preparing import prepare
from raygrad.pipeline.stages import facts_of_data, transform_of
from raygrad.runs.layout import RunLayout
from raygrad.scoring.numerics import numerics
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.starting import initial_network
from raygrad.training.study_data import StudyData, load_study_data

VGG, ALEXNET = "small_vgg16", "small_alexnet"


@dataclass(frozen=True)
class Candidate:
    """What a recipe is changed to; all else is as the study has it."""

    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    small_epochs: int

    def recipe(self, network: str) -> TrainConfig:
        """Returns the whole recipe."""
        return replace(PHOTOGRAPHS.recipe, network=network, **asdict(self))


TRIED = (
    (Candidate("sgd", 0.1, 64, 20, 14), ((VGG, 0.5), (ALEXNET, 0.5))),
    (Candidate("sgd", 0.05, 32, 20, 14), ((VGG, 0.5), (ALEXNET, 0.5))),
    (Candidate("sgd", 0.1, 64, 40, 28), ((ALEXNET, 0.5),)),
    (Candidate("muon", 0.02, 64, 20, 14), ((VGG, 0.5), (ALEXNET, 0.5))),
    (Candidate("muon", 0.05, 64, 20, 14), ((ALEXNET, 0.5),)),
    (Candidate("muon", 0.02, 64, 12, 9), ((VGG, 0.5), (ALEXNET, 0.5), (VGG, 0.1))),
    (Candidate("muon", 0.05, 64, 12, 9), ((VGG, 0.5), (ALEXNET, 0.5))),
    (
        Candidate("muon", 0.02, 32, 12, 9),
        ((VGG, 0.5), (ALEXNET, 0.5), (VGG, 0.1), (ALEXNET, 0.1)),
    ),
    (
        Candidate("muon", 0.05, 32, 12, 9),
        ((VGG, 0.5), (ALEXNET, 0.5), (VGG, 0.1), (ALEXNET, 0.1)),
    ),
    (
        Candidate("muon", 0.03, 16, 12, 9),
        ((VGG, 0.5), (ALEXNET, 0.5), (VGG, 0.1), (ALEXNET, 0.1)),
    ),
    (
        Candidate("muon", 0.05, 32, 16, 12),
        ((VGG, 0.5), (ALEXNET, 0.5), (VGG, 0.1), (ALEXNET, 0.1)),
    ),
)
"""Every candidate, in the order that they were thought of, with networks and shares."""


def units() -> Iterator[tuple[str, Candidate, str, float]]:
    """Yields each training: its name, the candidate, the network, the share of training images."""
    for candidate, of in TRIED:
        words = "-".join(str(value) for value in asdict(candidate).values())
        for network, share in of:
            yield f"{network}-{share}-{words}", candidate, network, share


def prepared(data: Path, work: Path) -> StudyData:
    """Returns the study's images, prepared once."""
    config = PHOTOGRAPHS.config(work / "run", PHOTOGRAPHS.data(data, work))
    with bound(config), session():
        prepare(config)
    layout = RunLayout(str(work / "run"))
    facts = facts_of_data(layout)
    index, sizes = read_index(layout.data), (int(facts["num_classes"]), int(facts["channels"]))
    return load_study_data(index, *sizes, transform_of(facts))


def judged(data: StudyData, config: TrainConfig, share: float, seed: int) -> dict[str, Any]:
    """Returns what one training came to, on validation and on the training images it left out."""
    num_train = len(data.train.labels)
    generator = np.random.default_rng(seed + 100)
    seen = np.sort(generator.choice(num_train, int(share * num_train), replace=False))
    left_out = np.setdiff1d(np.arange(num_train), seen)
    began, cpu_s = time.perf_counter(), time.process_time()
    with numerics(config.numerics, "cpu"):
        network = initial_network(config.network, config, data.spec, seed)
        if config.channels_last:
            network.to(memory_format=torch.channels_last)
        examples = data.examples("train", seen), data.examples("val")
        loop = TrainingLoop(network, config, data.normalize, *examples, order_seed=seed)
        out = loop.run(lambda _: None)
        took = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_s}
        found = evaluate(network, data.normalize, data.examples("train", left_out))
    return {
        "num_train": len(seen),
        "val_accuracy": out.best_val_accuracy,
        "left_out_accuracy": found.accuracy,
        "num_left_out": len(left_out),
        "best_epoch": out.best_epoch,
        "steps": out.step,
        "val_accuracies": [epoch["val_accuracy"] for epoch in out.history],
        **took,
    }


def main() -> None:
    """Trains what is not there yet, and records all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the archive")
    parser.add_argument("--work", type=Path, required=True, help="holds what is prepared and done")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    claim = "Recipes for the photographs, judged on training images that they do not train on."
    args, record = recorded(parser, claim)
    torch.set_num_threads(args.threads)
    data: StudyData | None = None
    for name, candidate, network, share in units():
        done = args.work / f"{name}-{args.seed}.json"
        if not done.exists():
            data = data or prepared(args.data, args.work)
            row = judged(data, candidate.recipe(network), share, args.seed)
            done.write_text(json.dumps(row))
        row = json.loads(done.read_text())
        record.add(network=network, share=share, seed=args.seed, **asdict(candidate), **row)
        print(name, f"{row['left_out_accuracy']:.4f}", flush=True)


if __name__ == "__main__":
    main()
