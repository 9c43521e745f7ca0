"""The training loop that one would write by hand: what raygrad's is measured against."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.config import TrainConfig
from raygrad.training.loop import EVAL_BATCH_SIZE
from raygrad.training.preprocess import Normalize


class BareLoop:
    """Plain PyTorch: shuffle, cut into batches, forward, backward, step; SGD with momentum.

    No ranks, no restart, no augmentation, nothing measured but the loss.

    Args:
        network: What is trained.
        config: `batch_size`, the optimiser's numbers and `channels_last` are used.
        normalize: Preprocessing of images.
        images: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        normalize: Normalize,
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self._config, self._images, self._labels = config, images, labels
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        self._network = network.to(memory_format=self._format)
        self._mean = torch.tensor(normalize.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(normalize.std).view(1, -1, 1, 1)
        self._optimizer = torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=True,
            weight_decay=config.weight_decay,
        )

    def epoch(self) -> float:
        """Trains on every image once; returns the mean loss."""
        total = torch.zeros(())
        self._network.train()
        for at in torch.randperm(len(self._labels)).split(self._config.batch_size):
            loss = F.cross_entropy(self._network(self._seen(self._images[at])), self._labels[at])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.detach() * len(at)
        return total.item() / len(self._labels)

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Returns the share of images that the network gets right."""
        self._network.eval()
        right = sum(
            int((self._network(self._seen(x)).argmax(1) == y).sum())
            for x, y in zip(
                images.split(EVAL_BATCH_SIZE), labels.split(EVAL_BATCH_SIZE), strict=True
            )
        )
        return right / len(labels)

    def train(self, epochs: int, val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
        """Trains with early stopping on validation; returns the best epoch's test accuracy."""
        best, weights = -1.0, {}
        for _ in range(epochs):
            self.epoch()
            found = self.accuracy(*val)
            if found > best:
                best, weights = found, copy.deepcopy(self._network.state_dict())
        self._network.load_state_dict(weights)
        return self.accuracy(*test)

    def _seen(self, images: Tensor) -> Tensor:
        inputs = (images.float() / 255 - self._mean) / self._std
        return inputs.contiguous(memory_format=self._format)
