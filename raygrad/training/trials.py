"""One retraining on a subset, from fresh weights to a network tested once."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raygrad.config import TrainConfig
from raygrad.training.data_order import DataOrder
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.models import build_network
from raygrad.training.study_data import StudyData


@dataclass(frozen=True)
class Trial:
    """One retraining: which subset, which network, which seeds."""

    network: str
    """The network that is retrained."""
    score_network: str
    """The network that the scores came from."""
    score_column: str
    """The score that the subset was drawn by."""
    method: str
    """The method of selection."""
    keep_fraction: float
    """The share of examples kept."""
    budget: int
    """How many examples that is."""
    seed: int
    """The replicate, which seeds the draw; the other seeds are derived from it."""
    protocol: str
    """equal_epochs (the paper's) or equal_steps."""
    subset_digest: str
    """Hash of the subset's keys."""
    config_digest: str
    """Hash of the recipe and of the data set."""

    @property
    def id(self) -> str:
        """A name that is the same for the same trial and differs for any other."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def derived_seed(self, purpose: str) -> int:
        """Returns a seed for one purpose; no two purposes and no two replicates share one.

        Trials that differ in method alone share their seeds, so that methods are compared on the
        same initial weights.
        """
        text = f"{purpose}/{self.seed}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def retrain(
    trial: Trial, kept: NDArray[np.int64], recipe: TrainConfig, data: StudyData
) -> dict[str, Any]:
    """Trains a fresh network on a subset, stops early on validation, tests the best epoch once.

    Args:
        trial: Network, seeds and protocol.
        kept: Positions of the subset in the training split, `[budget]`; their order is ignored.
        recipe: How it is trained.
        data: The data set in memory.

    Returns:
        The trial's row of the results table.
    """
    start_s = time.perf_counter()
    init_seed, order_seed = trial.derived_seed("init"), trial.derived_seed("order")
    network = build_network(trial.network, data.spec, init_seed)
    full_steps = DataOrder(len(data.train.labels), recipe.batch_size, 0).steps_per_epoch
    loop = TrainingLoop(
        network,
        recipe,
        data.normalize,
        data.examples("train", np.sort(kept)),
        data.examples("val"),
        order_seed=order_seed,
        steps_per_epoch=full_steps if trial.protocol == "equal_steps" else None,
    )
    out = loop.run()
    tested = evaluate(network, data.normalize, data.examples("test"))
    return {
        "trial": trial.id,
        **asdict(trial),
        "subset_seed": trial.seed,
        "init_seed": init_seed,
        "order_seed": order_seed,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "val_accuracy": out.best_val_accuracy,
        "val_loss": out.best_val_loss,
        "best_epoch": out.best_epoch,
        "epochs": out.epoch,
        "steps": out.step,
        "examples_seen": out.examples_seen,
        "train_time_s": time.perf_counter() - start_s,
        "device": "cpu",
    }
