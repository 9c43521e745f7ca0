"""Gradient norms of a few examples after every epoch, and of random batches at some epochs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer, batch_bound, example_scores
from raygrad.scoring.chunks import in_chunks
from raygrad.scoring.memory import batch_size_for
from raygrad.training import ranks
from raygrad.training.examples import Examples
from raygrad.training.losses import DEFAULT_LOSS, build_loss
from raygrad.training.preprocess import Normalize
from raygrad.training.streamed_examples import StreamedExamples

PROBE_COLUMNS = ("grad_l2_last_layer_weights", "grad_l2_weights")
"""The gradient norms that the probe measures; the loss stands beside them."""

_BATCH_SIZE = 128  # Of 16 to 512 the fastest for the paper's small networks on CPUs.
# Keep these draws apart from each other and from the data order's, which share a seed.
_PROBE_STREAM, _BOUND_STREAM = 0x960BE, 0xB0DD


class Probe:
    """Gradient norms of a fixed random sample of training examples, after every epoch.

    The paper's Figures 2 and 5. Examples are as stored, not augmented, and the network is in
    evaluation mode. Each rank measures its share.

    Args:
        train: The training split.
        normalize: Preprocessing of images.
        size: Examples of the sample; all of them where there are fewer.
        seed: Chooses the sample.
        loss: The loss whose gradients are measured, as `build_loss` takes it.
    """

    name = "probe"

    def __init__(
        self,
        train: Examples | StreamedExamples,
        normalize: Normalize,
        size: int,
        seed: int,
        loss: str = DEFAULT_LOSS,
    ) -> None:
        self._train, self._normalize, self._loss = train, normalize, build_loss(loss)
        generator = np.random.default_rng([seed, _PROBE_STREAM])
        size = min(size, len(train))
        self.positions = np.sort(generator.choice(len(train), size, replace=False))
        self._epochs: list[int] = []
        self._values: list[torch.Tensor] = []
        self._scorer: GradNormScorer | None = None
        self._size = 0

    def on_batch(self, positions: Any, logits: Any, labels: Any) -> None:
        """Does nothing; the probe looks after epochs only."""

    def after_epoch(self, epoch: int, network: nn.Module) -> None:
        """Measures the sample; see `Observer`."""
        if self._scorer is None:
            self._scorer = GradNormScorer(network, PROBE_COLUMNS, loss=self._loss)
        found = torch.zeros(len(self.positions), len(PROBE_COLUMNS) + 1, dtype=torch.float64)
        rows = np.arange(len(self.positions))[ranks.rank() :: ranks.world_size()]
        scorer = self._scorer

        def work(some: slice) -> None:
            part = rows[some]
            at = torch.from_numpy(self.positions[part])
            images, labels = _at(self._train, at, network)
            scored = scorer.score(self._normalize(images), labels)
            loss = example_scores(scored.logits, labels, loss=self._loss)["loss"]
            values = [*(scored.norms[name] for name in PROBE_COLUMNS), loss]
            found[torch.from_numpy(part)] = torch.stack(values, 1).double().cpu()

        self._size = self._size or _fitting(self._train, network, _BATCH_SIZE)
        _, self._size = in_chunks(work, len(rows), self._size, "the probe")
        self._epochs.append(epoch)
        self._values.append(ranks.sum_over_ranks(found))

    def table(self, keys: Sequence[str]) -> pa.Table:
        """Returns a row an epoch and example: epoch (from 1), key, gradient norms, loss.

        Args:
            keys: The keys of all training examples.
        """
        chosen = [keys[at] for at in self.positions]
        values = torch.cat(self._values).float().numpy()
        columns = {
            "epoch": np.repeat(np.array(self._epochs, np.int64), len(chosen)),
            "key": pa.array(chosen * len(self._epochs), pa.string()),
        }
        for column, name in enumerate((*PROBE_COLUMNS, "loss")):
            columns[name] = values[:, column]
        return pa.table(columns)

    def state_dict(self) -> dict[str, Any]:
        """Returns what was measured so far."""
        return {"epochs": self._epochs, "values": self._values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self._epochs, self._values = list(state["epochs"]), list(state["values"])


class Bound:
    """The norm of a batch's summed gradient against the sum of its examples' norms.

    The paper's Figure 1 and equation 6, for random batches of the training batch's size, at
    chosen epochs. The ranks share the batches.

    Args:
        train: The training split.
        normalize: Preprocessing of images.
        config: `batch_size`, `bound_epochs`, `bound_batches` and `loss` are used.
        seed: Chooses the batches, others at each epoch.
    """

    name = "bound"

    def __init__(
        self,
        train: Examples | StreamedExamples,
        normalize: Normalize,
        config: TrainConfig,
        seed: int,
    ) -> None:
        self._train, self._normalize, self._config, self._seed = train, normalize, config, seed
        self._loss = build_loss(config.loss)
        self._chunk = 0
        self._epochs: list[int] = []
        self._values: list[torch.Tensor] = []

    def on_batch(self, positions: Any, logits: Any, labels: Any) -> None:
        """Does nothing; batches are drawn for the purpose."""

    def after_epoch(self, epoch: int, network: nn.Module) -> None:
        """Measures the batches if the epoch is one of those chosen; see `Observer`."""
        if epoch not in self._config.bound_epochs:
            return
        found = torch.zeros(self._config.bound_batches, 2, dtype=torch.float64)
        size = min(self._config.batch_size, len(self._train))
        for batch in range(ranks.rank(), len(found), ranks.world_size()):
            generator = np.random.default_rng([self._seed, _BOUND_STREAM, epoch, batch])
            at = torch.from_numpy(generator.choice(len(self._train), size, replace=False))
            images, labels = _at(self._train, at, network)
            chunk = self._chunk = self._chunk or _fitting(self._train, network, size)
            norms = batch_bound(
                network, self._normalize(images), labels, loss=self._loss, chunk_size=chunk
            )
            found[batch] = torch.tensor([norms["norm_of_sum"], norms["sum_of_norms"]])
        self._epochs.append(epoch)
        self._values.append(ranks.sum_over_ranks(found))

    def table(self) -> pa.Table:
        """Returns a row a batch: epoch (from 1), batch, norm_of_sum, sum_of_norms."""
        num = self._config.bound_batches
        values = torch.cat(self._values).numpy() if self._values else np.empty((0, 2))
        return pa.table(
            {
                "epoch": np.repeat(np.array(self._epochs, np.int64), num),
                "batch": np.tile(np.arange(num), len(self._epochs)),
                "norm_of_sum": values[:, 0],
                "sum_of_norms": values[:, 1],
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns what was measured so far."""
        return {"epochs": self._epochs, "values": self._values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self._epochs, self._values = list(state["epochs"]), list(state["values"])


def check_gradients(
    network: nn.Module,
    train: Examples | StreamedExamples,
    normalize: Normalize,
    loss: str = DEFAULT_LOSS,
) -> None:
    """Checks before training that the network can have what `Probe` and `Bound` measure.

    Raises:
        ConfigError: It cannot have per-example gradients.
    """
    was_training = network.training
    network.eval()
    at = torch.arange(min(2, len(train)))
    images, labels = _at(train, at, network)
    try:
        scorer = GradNormScorer(network, PROBE_COLUMNS, loss=build_loss(loss))
        scorer.score(normalize(images), labels)
    except ConfigError as error:
        raise ConfigError(
            f"{error} Or train without the measurement: probe_size=0, bound_epochs=()."
        ) from error
    finally:
        network.train(was_training)


def _fitting(train: Examples | StreamedExamples, network: nn.Module, most: int) -> int:
    """Returns how many examples memory holds at a time, at most `most`."""
    channels, height, width = train.image_shape
    device = next(network.parameters()).device.type
    return min(most, batch_size_for(0, network, (channels, height, width), device, 1))


def _at(
    train: Examples | StreamedExamples, positions: torch.Tensor, network: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    device = next(network.parameters()).device
    labels = train.labels[positions.to(train.labels.device)]
    return train.take(positions).to(device), labels.to(device)
