"""One decoded batch through one or several networks, within the memory there is."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raygrad.scoring import GRAD_COLUMNS, SCORE_COLUMNS, GradNormScorer, example_scores
from raygrad.scoring import numerics as arithmetic
from raygrad.scoring.memory import MEASURED, measured_batch_size
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.verdicts import Verdicts
from raygrad.training.features import FeatureTap
from raygrad.training.losses import DEFAULT_LOSS, build_loss

log = logging.getLogger("raygrad")

GRAND = "grand"
"""GraNd: the l2 norm over all parameters, its mean over the checkpoints (arXiv 2107.07075)."""

TABLE_COLUMNS = (*GRAD_COLUMNS, *SCORE_COLUMNS, GRAND)
"""Every column that a score table can be asked for."""

_GRAND_OF = "grad_l2_all"
_EXTRA = ("prediction", "correct")


class NetworkScorer:
    """Scores batches with several checkpoints of a network, each image decoded once.

    With one network a column has its plain name. With K of them there is a column a network,
    ``<column>@<k>`` for k in 0..K-1, and the plain name is the mean over them; ``prediction`` and
    ``correct`` are then those of the mean of the networks' probabilities.

    Args:
        networks: In evaluation mode, on the CPU; they are moved.
        normalize: From uint8 to what the networks take.
        columns: Score columns, and ``grand``.
        device: ``cpu`` or ``cuda``.
        numerics: ``exact``, ``tf32`` or ``bf16``: see `raygrad.scoring.numerics`.
        channels_last: Use the memory format NHWC, which convolutions of GPUs prefer.
        batch_size: Examples a pass, at most; halved where memory does not suffice.
        features: Also return the penultimate features of the first network, and the gradient of
            each example's loss at its logits, ``errors``, where its last linear layer makes them.
        loss: The loss whose gradients are scored, as `build_loss` takes it.
        budget_bytes: The bytes that a pass may take, where the batch size shall follow from those
            that passes of a GPU are seen to take; None keeps it.

    Raises:
        ConfigError: Features are asked of a network that does not end in a linear layer.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        normalize: Callable[[Tensor], Tensor],
        columns: Sequence[str],
        *,
        device: str = "cpu",
        numerics: str = "exact",
        channels_last: bool = False,
        batch_size: int = 256,
        features: bool = False,
        loss: str = DEFAULT_LOSS,
        budget_bytes: int | None = None,
    ) -> None:
        self.columns, self.batch_size = tuple(columns), batch_size
        self._budget_bytes = budget_bytes
        self._device, self._numerics = torch.device(device), numerics
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._normalize = normalize
        wanted = [_GRAND_OF if column == GRAND else column for column in columns]
        grad_columns = tuple(dict.fromkeys(c for c in wanted if c in GRAD_COLUMNS))
        self._networks = [_placed(n, self._device, self._format) for n in networks]
        self._loss = build_loss(loss)
        self._scorers = [
            GradNormScorer(network, grad_columns, loss=self._loss) if grad_columns else None
            for network in self._networks
        ]
        self._features = FeatureTap(self._networks[0]) if features else None

    def score(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
        """Returns every column for a batch, each an array `[B]`.

        Features are float16 `[B, D]`, errors float32 `[B, C]`.

        Args:
            images: Pixels `[B, C, H, W]`, B at least 1.
            labels: Classes `[B]`.

        Raises:
            ConfigError: A network's code has changed how exactly torch computes.
        """
        later = Verdicts()
        found = self.scored(torch.from_numpy(images), torch.from_numpy(labels), later)
        return self.collected([found], later)

    def scored(self, images: Tensor, labels: Tensor, later: Verdicts) -> dict[str, Tensor]:
        """Returns every column for a batch on the device, which is not waited for.

        Args:
            images: Pixels, uint8 `[B, C, H, W]`, B at least 1, on the device or not.
            labels: Classes, int64 `[B]`, likewise.
            later: Takes what only the device knows, for `collected`.

        Raises:
            ConfigError: As of `score`.
        """
        with arithmetic.numerics(self._numerics, self._device):
            return self._scored(images, labels, later)

    def collected(self, parts: Sequence[dict[str, Tensor]], later: Verdicts) -> dict[str, Any]:
        """Returns the columns of several batches together, as arrays, from what `scored` gave.

        The device is waited for here, once: what it has found wrong is told.

        Args:
            parts: What `scored` gave; none give no columns.
            later: What it was given.

        Raises:
            ConfigError: An example's scores depended on its batch.
            DataError: A label is no class.
        """
        later.read()
        if not parts:
            return {}
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        found: dict[str, Any] = {}
        for kind in {tensor.dtype for tensor in whole.values()}:
            names = [name for name, tensor in whole.items() if tensor.dtype == kind]
            widths = [whole[name][:1].numel() for name in names]
            # All columns of a type come in one transfer.
            rows = torch.cat([whole[name].reshape(len(whole[name]), -1) for name in names], 1).cpu()
            for name, values in zip(names, rows.split(widths, 1), strict=True):
                found[name] = np.ascontiguousarray(values.reshape(whole[name].shape).numpy())
        return {name: found[name] for name in whole}

    def _measure(self, images: Tensor, labels: Tensor) -> None:
        """Finds the batch size by passes of the first images that are real, once."""
        if self._budget_bytes is None or len(labels) < MEASURED:
            return
        budget, self._budget_bytes = self._budget_bytes, None

        def run(count: int) -> object:
            return self._pass(images[:count], labels[:count], Verdicts())

        try:
            self.batch_size = measured_batch_size(run, budget, MEASURED)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            log.info("score: batches of %d, by the memory of passes", self.batch_size)

    def _scored(self, images: Tensor, labels: Tensor, later: Verdicts) -> dict[str, Tensor]:
        self._measure(images, labels)
        while True:
            size = self.batch_size
            try:
                parts = [
                    self._pass(images[at : at + size], labels[at : at + size], later)
                    for at in range(0, len(labels), size)
                ]
            except RuntimeError as error:
                if not is_out_of_memory(error) or min(size, len(labels)) == 1:
                    raise
                reason = str(error).splitlines()[0]
            else:
                if len(parts) == 1:
                    return parts[0]
                return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
            # Outside of the handler: its traceback would keep the tensors of the pass alive.
            self.batch_size = min(size, len(labels)) // 2
            log.warning("score: batches of %d from now on: %s", self.batch_size, reason)
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def no_scores(self) -> dict[str, Any]:
        """Returns the columns of no example at all, each with its type."""
        many = range(len(self._networks)) if len(self._networks) > 1 else ()
        names = [name for c in self.columns for name in (c, *(f"{c}@{k}" for k in many))]
        columns: dict[str, Any] = {name: np.empty(0, np.float32) for name in names}
        for suffix in ("", *(f"@{k}" for k in many)):
            columns[f"prediction{suffix}"] = np.empty(0, np.int64)
            columns[f"correct{suffix}"] = np.empty(0, np.bool_)
        return columns

    def _pass(self, images: Tensor, labels: Tensor, later: Verdicts) -> dict[str, Tensor]:
        pixels = images.to(self._device, non_blocking=True)
        inputs = self._normalize(pixels).contiguous(memory_format=self._format)
        targets = labels.to(self._device, non_blocking=True)
        # A processor has nothing to wait for: what is wrong is told where it is.
        after = None if self._device.type == "cpu" else later
        logits, found = [], []
        for network, scorer in zip(self._networks, self._scorers, strict=True):
            with arithmetic.autocast(self._numerics, self._device):
                if scorer is not None:
                    norms = scorer.score(inputs, targets, later=after)
                    outputs, values = norms.logits, norms.norms
                else:
                    with torch.no_grad():
                        outputs, values = network(inputs), {}
            logits.append(outputs)
            scores = example_scores(outputs, targets, loss=self._loss, later=after)
            found.append({**scores, **values})
        result = self._columns(found, logits, targets)
        if self._features is not None:
            with arithmetic.autocast(self._numerics, self._device):
                features, made = self._features.of_last_layer(inputs)
            result["features"] = features.half()
            if made is not None:
                result["errors"] = self._loss.gradient(made, targets).float()
        return result

    def _columns(
        self, found: list[dict[str, Tensor]], logits: list[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for column in self.columns:
            each = [scores[_GRAND_OF if column == GRAND else column] for scores in found]
            result[column] = (
                each[0] if len(each) == 1 else torch.stack(each).double().mean(0).float()
            )
            if len(each) > 1:
                result |= {f"{column}@{k}": values for k, values in enumerate(each)}
        if len(found) == 1:
            result |= {name: found[0][name] for name in _EXTRA}
        else:
            mean = torch.stack([one.double().softmax(1) for one in logits]).mean(0)
            prediction = mean.argmax(1)
            result |= {"prediction": prediction, "correct": prediction == labels}
            for k, scores in enumerate(found):
                result |= {f"{name}@{k}": scores[name] for name in _EXTRA}
        return result


def _placed(network: nn.Module, device: torch.device, memory_format: Any) -> nn.Module:
    return network.to(device).to(memory_format=memory_format).eval()
