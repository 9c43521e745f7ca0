"""The training loop: the same code alone in a process and in each worker of a DDP group."""

import copy
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError, DataError, RaygradError
from raygrad.scoring.chunks import in_chunks
from raygrad.scoring.numerics import autocast
from raygrad.training import ranks
from raygrad.training.augment import mixed_labels
from raygrad.training.batches import Batches
from raygrad.training.checkpoints import on_cpu
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples
from raygrad.training.losses import check_loss, training_loss
from raygrad.training.micro_batches import MicroBatches
from raygrad.training.observers import Observer
from raygrad.training.optimizers import learning_rate_at, make_optimizer
from raygrad.training.preprocess import Normalize
from raygrad.training.streamed_examples import PhotoCrops, StreamedExamples
from raygrad.training.validating import validation_epochs
from raygrad.training.variation import Variation
from raygrad.training.whitening import fit_whitening

# On CPUs activations of more examples leave the caches: 1,024 took 2.4 times as long an image.
EVAL_BATCH_SIZE = 256


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
    """Trains a network with early stopping; can be stopped after any step and go on.

    The gradient of a step is the mean over the global batch, also when ranks hold different
    numbers of its examples.

    Args:
        network: The bare network, on its device; given `ddp` too, its parameters are those that
            `ddp` syncs.
        config: Recipe: optimiser, loss, schedule, batch size, augmentation, numerics, patience.
        normalize: Preprocessing of images.
        train: The training split or a subset of it; not empty.
        val: The validation split; not empty.
        order_seed: Seeds the order of the data, its augmentation and dropout.
        steps_per_epoch: Updates between two evaluations; by default one pass over `train`. The
            protocol equal_steps gives the full data set's number here for every subset.
        ddp: The network as wrapped by DistributedDataParallel, where there are several ranks.
        observers: What measures while the network is trained.
        min_validations: How often it is validated before patience may end it; see `validating`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        normalize: Normalize,
        train: Examples | StreamedExamples,
        val: Examples | StreamedExamples,
        *,
        order_seed: int,
        steps_per_epoch: int | None = None,
        ddp: nn.Module | None = None,
        observers: Sequence[Observer] = (),
        min_validations: int = 0,
    ) -> None:
        for name, split in (("training", train), ("validation", val)):
            if len(split) == 0:
                raise DataError(f"the {name} split must hold an example, got none. Keep more data.")
        self._network, self._ddp = network, ddp or network
        self._config, self._normalize = config, normalize
        self._device = device_of(network)
        self._train, self._val = train.near(self._device), val.near(self._device)
        self._order_seed = order_seed
        self._loss, self._loss_checked = training_loss(config.loss), False
        order = DataOrder(len(train), config.batch_size, order_seed, config.shuffle_buffer)
        crops = PhotoCrops.of(config, order_seed)
        self._batches = Batches(self._train, order, self._device, crops)
        self._variation = Variation(config, order, order_seed, self._train, self._batches)
        fit_whitening(network, self._train, normalize)
        self.steps_per_epoch = steps_per_epoch or order.steps_per_epoch
        self._min_validations = min_validations
        self._micro_batches = MicroBatches(network, config.micro_batch)
        self._optimizer = make_optimizer(network, config)
        self._observers = tuple(observers)
        # Of the epoch under way: this rank's summed loss, its examples, and seconds spent before.
        self._totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        self._epoch_s = 0.0
        self.outcome = Outcome()

    @property
    def micro_batch(self) -> int:
        """Examples that this rank's passes take at a time; 0 for all that it has of a batch."""
        return self._micro_batches.size

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over or patience has run out."""
        out = self.outcome
        every = self._validation_epochs
        waited = out.epoch - out.epoch % every - out.best_epoch
        seen = out.epoch // every >= self._min_validations
        return out.epoch >= self._config.epochs or (seen and waited >= self._config.patience)

    @property
    def between_epochs(self) -> bool:
        """Whether the last step was an epoch's last one."""
        return self.outcome.step % self.steps_per_epoch == 0

    @property
    def _validation_epochs(self) -> int:
        """Epochs from one validation to the next."""
        return validation_epochs(
            self._config.validation_steps,
            self.steps_per_epoch,
            self._config.epochs,
            self._min_validations,
        )

    def run(
        self,
        after_epoch: Callable[["TrainingLoop"], None] | None = None,
        after_step: Callable[["TrainingLoop"], None] | None = None,
    ) -> Outcome:
        """Trains until finished, then gives the network its best epoch's weights.

        Args:
            after_epoch: Called on every rank after each epoch: to report and save.
            after_step: Called on every rank after each step within an epoch, not its last one.

        Raises:
            RaygradError: The loss is not finite any more.
        """
        while not self.finished:
            self._run_epoch(after_step)
            if after_epoch is not None:
                after_epoch(self)
        self._network.load_state_dict(self.outcome.best_weights)
        return self.outcome

    def state_dict(self) -> dict[str, Any]:
        """Returns all that is needed to go on exactly as if never stopped.

        To be called on every rank after the same step; the same on all of them, a copy of its own
        in the machine's memory.
        """
        state: dict[str, Any] = {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "outcome": dict(vars(self.outcome)),
            "observers": {o.name: o.state_dict() for o in self._observers},
            "totals": ranks.sum_over_ranks(self._totals),
            "epoch_s": self._epoch_s,
            "random": [ranks.gathered(s) for s in self._random_states()],
            "micro_batches": ranks.gathered_numbers(self._micro_batches.found),
        }
        return on_cpu(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Raises:
            ConfigError: It is the state of another network.
        """
        try:
            self._network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise ConfigError(
                f"the saved training must be of network {self._config.network!r}, got {error}. "
                "Name another --run, or remove the saved state."
            ) from error
        # What is given is kept and changed from here on; the caller's, which another rank may
        # share, must not change with it.
        state = copy.deepcopy(state)
        self._optimizer.load_state_dict(state["optimizer"])
        self.outcome = Outcome(**state["outcome"])
        for observer in self._observers:
            observer.load_state_dict(state["observers"][observer.name])
        # What all ranks had summed goes on in the first alone.
        self._totals = state["totals"].to(self._device) * (ranks.rank() == 0)
        self._epoch_s = state["epoch_s"]
        found = state.get("micro_batches", [])  # states that are older have none
        self._micro_batches.restore(found, ranks.rank(), ranks.world_size())
        self._restore_random(state["random"])

    def _random_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states

    def _restore_random(self, states: list[list[Tensor]]) -> None:
        if len(states[0]) != ranks.world_size():
            # Dropout cannot go on as it was with another number of ranks.
            seed = _mixed_seed(self._order_seed, self.outcome.epoch, ranks.rank())
            torch.manual_seed(_mixed_seed(seed, self.outcome.step))
            return
        torch.set_rng_state(states[0][ranks.rank()].cpu())
        if self._device.type == "cuda" and len(states) > 1:
            torch.cuda.set_rng_state(states[1][ranks.rank()].cpu(), self._device)

    def _run_epoch(self, after_step: Callable[["TrainingLoop"], None] | None) -> None:
        start_s = time.perf_counter() - self._epoch_s
        if self.between_epochs:
            # Dropout differs by rank and epoch, and not by what ran before in this process.
            torch.manual_seed(_mixed_seed(self._order_seed, self.outcome.epoch, ranks.rank()))
        self._ddp.train()
        while True:
            self._totals += self._step(self.outcome.step)
            self.outcome.step += 1
            if self.between_epochs:
                break
            if after_step is not None:
                self._epoch_s = time.perf_counter() - start_s
                after_step(self)
        self._end_epoch(start_s)

    def _end_epoch(self, start_s: float) -> None:
        total = ranks.sum_over_ranks(self._totals).tolist()
        self._totals.zero_()
        self._epoch_s = 0.0
        train_loss = total[0] / total[1]
        self.outcome.examples_seen += int(total[1])
        if not math.isfinite(train_loss):
            raise RaygradError(
                f"training loss must stay finite, got {train_loss} in epoch "
                f"{self.outcome.epoch + 1}. Lower learning_rate."
            )
        ranks.share_buffers(self._network)
        self.outcome.epoch += 1
        found = self._validate()
        self._observe_epoch()
        self.outcome.history.append(
            {
                "epoch": self.outcome.epoch,
                "learning_rate": self._optimizer.param_groups[0]["lr"],
                "train_loss": train_loss,
                **found,
                "epoch_time_s": time.perf_counter() - start_s,
            }
        )

    def _observe_epoch(self) -> None:
        self._network.eval()
        for observer in self._observers:
            observer.after_epoch(self.outcome.epoch, self._network)
        self._network.train()

    def _validate(self) -> dict[str, float]:
        """Returns the columns of validation, none in an epoch that is not validated."""
        out = self.outcome
        if out.epoch % self._validation_epochs and out.epoch < self._config.epochs:
            return {}
        found = evaluate(self._network, self._normalize, self._val)
        if (found.accuracy, -found.loss) > (out.best_val_accuracy, -out.best_val_loss):
            out.best_epoch, out.best_val_accuracy = out.epoch, found.accuracy
            out.best_val_loss = found.loss
            out.best_weights = copy.deepcopy(self._network.state_dict())
        return {"val_loss": found.loss, "val_accuracy": found.accuracy}

    def _step(self, step: int) -> Tensor:
        """Does one update; returns this rank's summed loss and number of examples, `[2]`."""
        batch = self._batches.take(step)
        num_mine = batch.num_mine
        small = self.outcome.epoch < self._config.small_epochs
        images, partners, share = self._variation.of(batch, step, small)
        logits: list[Tensor] = []
        losses: list[Tensor] = []

        def passes(network: nn.Module, rows: slice) -> None:
            found = self._forward(network, images[rows])
            labels = batch.labels[rows]
            if partners is not None:
                labels = mixed_labels(labels, partners[rows], share, found.shape[1])
            if not self._loss_checked:
                check_loss(self._loss, found, labels)
                self._loss_checked = True
            loss = self._loss.total(found, labels) * (1.0 if num_mine else 0.0)
            # DDP averages over ranks; the gradient wanted is the mean over the global batch.
            (loss * (ranks.world_size() / batch.num_global)).backward()
            logits.append(found.detach())
            losses.append(loss.detach().double())

        def clear() -> None:
            self._optimizer.zero_grad(set_to_none=True)
            logits.clear()
            losses.clear()

        rate = learning_rate_at(self._config, step, self.steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self._micro_batches.run(self._ddp, len(images), passes, clear)
        self._optimizer.step()
        if self._observers:
            seen = torch.cat(logits)[:num_mine]
            for observer in self._observers:
                observer.on_batch(batch.positions[:num_mine], seen, batch.labels[:num_mine])
        counted = torch.full((), num_mine, dtype=torch.float64, device=self._device)
        return torch.stack([torch.stack(losses).sum(), counted])

    def _forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """Returns float32 logits of uint8 images, computed by the recipe's numerics."""
        inputs = self._normalize(images)
        if self._config.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self._config.numerics != "bf16":
            return network(inputs)
        with autocast("bf16", self._device):
            return network(inputs).float()


def device_of(network: nn.Module) -> torch.device:
    """Returns the device of the network's parameters; the CPU where it has none."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@torch.no_grad()
def evaluate(
    network: nn.Module, normalize: Normalize, examples: Examples | StreamedExamples
) -> Evaluation:
    """Returns accuracy and mean loss of the network on a split, computed over all ranks together.

    Each rank takes its share of the batches; the network is left in the mode that it came in.
    """
    was_training, device = network.training, device_of(network)
    network.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    size = EVAL_BATCH_SIZE

    def evaluated(images: Tensor, labels: Tensor) -> Tensor:
        logits = network(normalize(images.to(device)))
        losses = F.cross_entropy(logits, labels, reduction="none").double()
        return torch.stack([(logits.argmax(1) == labels).double().sum(), losses.sum()])

    every = range(0, len(examples), EVAL_BATCH_SIZE)
    starts = every[ranks.rank() :: ranks.world_size()]
    for start, images in zip(starts, examples.chunks(starts, EVAL_BATCH_SIZE), strict=True):
        labels = examples.labels[start : start + EVAL_BATCH_SIZE].to(device)
        work = functools.partial(_on_rows, evaluated, images, labels)
        found, size = in_chunks(work, len(labels), size, "evaluation")
        for each in found:
            totals += each
    network.train(was_training)
    correct, loss = (ranks.sum_over_ranks(totals) / len(examples)).tolist()
    return Evaluation(accuracy=correct, loss=loss)


def _on_rows(
    work: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, rows: slice
) -> Tensor:
    return work(images[rows], labels[rows])


def _mixed_seed(*parts: int) -> int:
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % 2**63
    return seed
