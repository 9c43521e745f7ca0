"""The fast recipe of CIFAR-10: what it reaches on all data, in how much work.

    raygrad prepare cifar10 --data-dir DIR --run RUN       # or: prepare image-folder
    python -m benchmarks.cifar10_recipe --run RUN --work WORK --seeds 0 1 2

Each seed is one training on the whole training split as a sweep does it: an epoch is chosen on
validation alone, the test set is looked at once, in the end. `--validation-only` never looks at
it: for trying changes of the recipe (`--change epochs=12`). A command that was stopped goes on
where it was, and the seconds of all its processes add up.
"""

import argparse
import ast
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.recording import Record, recorded
from raygrad.config import TrainConfig
from raygrad.data.index import read_index
from raygrad.pipeline.stages import facts_of_data
from raygrad.runs.layout import RunLayout
from raygrad.scoring.numerics import numerics
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.recipes import named_recipe
from raygrad.training.saved_state import StateFile
from raygrad.training.starting import initial_network
from raygrad.training.study_data import StudyData, load_study_data

PRODUCT = 1024
"""The side of the float32 product whose rate stands for what the processor can do."""
SAVE_S = 60.0
"""Seconds between two saves of a training's state."""


def main() -> None:
    """Trains the recipe from each seed and records what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="the run folder that CIFAR-10 is prepared in")
    parser.add_argument("--work", required=True, help="where unfinished trainings are kept")
    parser.add_argument("--recipe", default="cifar10/airbench94")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--change", nargs="*", default=[], help="fields of the recipe, NAME=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--validation-only", action="store_true", help="the test set is not used")
    args, record = recorded(parser, "The fast recipe of CIFAR-10 on all data: accuracy and work.")
    torch.set_num_threads(args.threads)
    config = changed(named_recipe(args.recipe), args.change)
    index = read_index(RunLayout(args.run).data)
    facts = facts_of_data(RunLayout(args.run))
    data = load_study_data(index, int(facts["num_classes"]), int(facts["channels"]))
    record.add(
        kind="work",
        recipe=vars(config),
        flops=flops_of_training(config, data.spec, len(data.train.labels)),
        product_gflop_per_cpu_s=product_rates(),
        **data.num_examples,
    )
    for seed in args.seeds:
        train(config, data, seed, Path(args.work), record, not args.validation_only)


def changed(config: TrainConfig, changes: list[str]) -> TrainConfig:
    """Returns a recipe with some fields changed, each given as NAME=VALUE."""
    pairs = (change.split("=", 1) for change in changes)
    return replace(config, **{name: _value(text) for name, text in pairs})


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def flops_of_training(config: TrainConfig, spec: ImageSpec, num_train: int) -> float:
    """Returns the floating-point operations of all epochs, forward and backward, as counted.

    Of products alone, as torch counts them: two a multiply-add. Validation is not in it.
    """
    network, total = build_network(config.network, spec, 0).train(), 0.0
    for side, epochs in (
        (min(config.small_size, spec.height), config.small_epochs),
        (spec.height, config.epochs - config.small_epochs),
    ):
        with FlopCounterMode(display=False) as counter:
            network(torch.randn(2, spec.channels, side, side)).sum().backward()
        total += counter.get_total_flops() / 2 * num_train * epochs
    return total


def product_rates(repeats: int = 5) -> list[float]:
    """Returns GFLOP a CPU second of a plain float32 product, on as many threads as training."""
    left, right = torch.randn(2, PRODUCT, PRODUCT)
    left @ right
    rates = []
    for _ in range(repeats):
        begun_s = time.process_time()
        for _ in range(5):
            left @ right
        rates.append(5 * 2 * PRODUCT**3 / (time.process_time() - begun_s) / 1e9)
    return rates


def train(
    config: TrainConfig, data: StudyData, seed: int, work: Path, record: Record, is_tested: bool
) -> None:
    """Trains one network as a sweep does, going on where it was, and records epochs and result."""
    work.mkdir(parents=True, exist_ok=True)
    asked = json.dumps([seed, vars(config), data.num_examples], sort_keys=True)
    name = work / hashlib.sha256(asked.encode()).hexdigest()[:16]
    done = name.with_suffix(".tested.json" if is_tested else ".json")
    if not done.exists():
        with numerics(config.numerics, "cpu"), CountedState(name) as state:
            row = _trained(config, data, seed, state, is_tested)
        done.write_text(json.dumps(row))
    row = json.loads(done.read_text())
    for epoch in row.pop("history"):
        record.add(kind="epoch", seed=seed, **epoch)
    record.add(kind="trained", seed=seed, **row)
    print(f"seed {seed}", row, flush=True)


def _trained(
    config: TrainConfig, data: StudyData, seed: int, state: "CountedState", is_tested: bool
) -> dict[str, Any]:
    network = initial_network(config.network, config, data.spec, seed)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    train, val = data.examples("train"), data.examples("val")
    normalize = data.normalize
    loop = TrainingLoop(network, config, normalize, train, val, order_seed=seed)
    saved = state.read()
    if saved is not None:
        loop.load_state_dict(saved)

    def after_epoch(loop: TrainingLoop) -> None:
        state.save_if_due(loop)
        row = loop.outcome.history[-1] | {"cpu_s": state.cpu_s}
        print(f"seed {seed}", {key: round(value, 4) for key, value in row.items()}, flush=True)

    out = loop.run(after_epoch, state.save_if_due)
    row = {
        "epochs": out.epoch,
        "best_epoch": out.best_epoch,
        "val_accuracy": out.best_val_accuracy,
        "cpu_s": state.cpu_s,
        "epochs_s": sum(epoch["epoch_time_s"] for epoch in out.history),
        "history": out.history,
    }
    if is_tested:
        row["test_accuracy"] = evaluate(network, normalize, data.examples("test")).accuracy
    return row


class CountedState(StateFile):
    """The saved state of a training, and the CPU seconds of all processes that worked on it.

    What was lost and done again is counted twice.

    Args:
        name: The files, without what they end in.
    """

    def __init__(self, name: Path) -> None:
        super().__init__(str(name.with_suffix(".state")), interval_s=SAVE_S)
        self._kept = name.with_suffix(".seconds")
        self._before_s = float(self._kept.read_text()) if self._kept.exists() else 0.0

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far, of all threads."""
        return self._before_s + time.process_time()

    def save_if_due(self, loop: TrainingLoop) -> None:
        """Saves the state now and then, and the seconds after every step."""
        self._kept.write_text(str(self.cpu_s))
        super().save_if_due(loop)


if __name__ == "__main__":
    main()
