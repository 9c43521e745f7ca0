"""The training loop: the same code alone in a process and in each worker of a DDP group."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.config import TrainConfig
from raygrad.errors import DataError, RaygradError
from raygrad.training.data_order import DataOrder
from raygrad.training.preprocess import Normalize

EVAL_BATCH_SIZE = 1024


@dataclass(frozen=True)
class Examples:
    """Images and labels of one split, in memory."""

    images: Tensor
    """Pixels, uint8 `[N, C, H, W]`."""
    labels: Tensor
    """Classes, int64 `[N]`."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Evaluation:
    """How a network does on one split."""

    accuracy: float
    """Share of examples whose largest logit is at their label, in [0, 1]."""
    loss: float
    """Mean cross-entropy."""


@dataclass
class Outcome:
    """What training has come to so far; the best epoch is chosen on validation alone."""

    epoch: int = 0
    step: int = 0
    examples_seen: int = 0
    best_epoch: int = 0
    best_val_accuracy: float = -1.0
    best_val_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)


class TrainingLoop:
    """Trains a network with early stopping; can be stopped after any epoch and go on.

    The gradient of a step is the mean over the global batch, also when ranks hold different
    numbers of its examples.

    Args:
        network: The bare network; given `ddp` too, its parameters are those that `ddp` syncs.
        config: Recipe: optimiser, decays, batch size, patience.
        normalize: Preprocessing of images.
        train: The training split or a subset of it; not empty.
        val: The validation split; not empty.
        order_seed: Seeds the order of the data and dropout.
        steps_per_epoch: Updates between two evaluations; by default one pass over `train`. The
            protocol equal_steps gives the full data set's number here for every subset.
        ddp: The network as wrapped by DistributedDataParallel, where there are several ranks.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        normalize: Normalize,
        train: Examples,
        val: Examples,
        *,
        order_seed: int,
        steps_per_epoch: int | None = None,
        ddp: nn.Module | None = None,
    ) -> None:
        for name, split in (("training", train), ("validation", val)):
            if len(split) == 0:
                raise DataError(f"the {name} split must hold an example, got none. Keep more data.")
        self._network, self._ddp = network, ddp or network
        self._config, self._normalize = config, normalize
        self._train, self._val = train, val
        self._order_seed = order_seed
        self._order = DataOrder(len(train), config.batch_size, order_seed)
        self._steps_per_epoch = steps_per_epoch or self._order.steps_per_epoch
        self._optimizer = make_optimizer(network, config)
        self.outcome = Outcome()

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over or patience has run out."""
        out = self.outcome
        waited = out.epoch - out.best_epoch
        return out.epoch >= self._config.epochs or waited >= self._config.patience

    def run(self, after_epoch: Callable[["TrainingLoop"], None] | None = None) -> Outcome:
        """Trains until finished, then gives the network its best epoch's weights.

        Args:
            after_epoch: Called on every rank after each epoch: to report and save.

        Raises:
            RaygradError: The loss is not finite any more.
        """
        while not self.finished:
            self._run_epoch()
            if after_epoch is not None:
                after_epoch(self)
        self._network.load_state_dict(self.outcome.best_weights)
        return self.outcome

    def state_dict(self) -> dict[str, Any]:
        """Returns all that is needed to go on exactly as if never stopped."""
        state = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "outcome": dict(vars(self.outcome)),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.outcome = Outcome(**state["outcome"])

    def _run_epoch(self) -> None:
        start_s = time.perf_counter()
        learning_rate = decayed_learning_rate(self._config, self.outcome.epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # Dropout differs by rank and epoch, and not by what ran before in this process.
        torch.manual_seed(_mixed_seed(self._order_seed, self.outcome.epoch, _rank()))
        self._ddp.train()
        total = torch.zeros(2, dtype=torch.float64)
        for _ in range(self._steps_per_epoch):
            total += self._step(self.outcome.step)
            self.outcome.step += 1
        _all_reduce(total)
        train_loss = float(total[0] / total[1])
        self.outcome.examples_seen += int(total[1])
        if not math.isfinite(train_loss):
            raise RaygradError(
                f"training loss must stay finite, got {train_loss} in epoch "
                f"{self.outcome.epoch + 1}. Lower learning_rate."
            )
        found = evaluate(self._network, self._normalize, self._val)
        self._keep_if_best(found)
        self.outcome.history.append(
            {
                "epoch": self.outcome.epoch,
                "learning_rate": learning_rate,
                "train_loss": train_loss,
                "val_loss": found.loss,
                "val_accuracy": found.accuracy,
                "epoch_time_s": time.perf_counter() - start_s,
            }
        )

    def _keep_if_best(self, found: Evaluation) -> None:
        out = self.outcome
        out.epoch += 1
        if (found.accuracy, -found.loss) > (out.best_val_accuracy, -out.best_val_loss):
            out.best_epoch, out.best_val_accuracy = out.epoch, found.accuracy
            out.best_val_loss = found.loss
            out.best_weights = copy.deepcopy(self._network.state_dict())

    def _step(self, step: int) -> Tensor:
        """Does one update; returns this rank's summed loss and number of examples, `[2]`."""
        positions = self._order.batch(step)
        mine = torch.from_numpy(positions[_rank() :: _world_size()])
        # A rank without an example in a short last batch still has to join the others' all-reduce.
        weight = 1.0 if len(mine) else 0.0
        mine = mine if len(mine) else torch.zeros(1, dtype=torch.int64)
        logits = self._ddp(self._normalize(self._train.images[mine]))
        loss = F.cross_entropy(logits, self._train.labels[mine], reduction="sum") * weight
        self._optimizer.zero_grad(set_to_none=True)
        # DDP averages over ranks; the gradient wanted is the mean over the global batch.
        (loss * (_world_size() / len(positions))).backward()
        self._optimizer.step()
        return torch.tensor([loss.item(), weight * len(mine)], dtype=torch.float64)


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Returns the recipe's optimiser over the network's parameters."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def decayed_learning_rate(config: TrainConfig, epoch: int) -> float:
    """Returns the learning rate of an epoch, counted from 0, after the step decays due by then."""
    decays = sum(epoch >= at for at in config.lr_decay_epochs)
    return config.learning_rate * config.lr_decay_factor**decays


@torch.no_grad()
def evaluate(network: nn.Module, normalize: Normalize, examples: Examples) -> Evaluation:
    """Returns accuracy and mean loss of the network on a split, computed over all ranks together.

    Each rank takes its share of the batches; the network is left in the mode that it came in.
    """
    was_training = network.training
    network.eval()
    totals = torch.zeros(2, dtype=torch.float64)
    starts = range(0, len(examples), EVAL_BATCH_SIZE)
    for start in list(starts)[_rank() :: _world_size()]:
        labels = examples.labels[start : start + EVAL_BATCH_SIZE]
        logits = network(normalize(examples.images[start : start + EVAL_BATCH_SIZE]))
        losses = F.cross_entropy(logits, labels, reduction="none").double()
        totals += torch.stack([(logits.argmax(1) == labels).double().sum(), losses.sum()])
    network.train(was_training)
    _all_reduce(totals)
    correct, loss = (totals / len(examples)).tolist()
    return Evaluation(accuracy=correct, loss=loss)


def _mixed_seed(*parts: int) -> int:
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % 2**63
    return seed


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _all_reduce(totals: Tensor) -> None:
    if dist.is_initialized():
        dist.all_reduce(totals)
