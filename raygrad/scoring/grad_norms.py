"""The norm of each example's own loss gradient."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from raygrad.errors import ConfigError, unknown_name
from raygrad.scoring.scores import EXAMPLE_COLUMNS

LAST_LAYER_COLUMN = "grad_l2_last_layer_weights"
GRAD_COLUMNS = (LAST_LAYER_COLUMN, "grad_l2_weights")
"""Gradient norms by name: `grad_<norm>_<parameter subset>`."""

CHUNK_SIZE = 64


def check_columns(columns: Sequence[str]) -> None:
    """Raises ConfigError unless every column is a known score."""
    for column in columns:
        if column not in (*GRAD_COLUMNS, *EXAMPLE_COLUMNS):
            raise ConfigError(unknown_name("column", column, (*GRAD_COLUMNS, *EXAMPLE_COLUMNS)))


def per_example_grad_norms(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    columns: Sequence[str] = ("grad_l2_weights",),
) -> dict[str, Tensor]:
    """Returns the gradient norms of each example's own cross-entropy loss; see `GradNormScorer`."""
    return GradNormScorer(model, columns).score(images, labels)[0]


class GradNormScorer:
    r"""Computes :math:`\|\nabla_\theta L_i\|` for each example of a batch (equation 6's terms).

    `grad_l2_last_layer_weights` has a closed form: the gradient is the outer product of
    :math:`p - y` and the last layer's input, so its norm is the product of theirs, and a forward
    pass is all it costs. `grad_l2_weights` is over every parameter whose own name does not
    contain "bias".

    Args:
        model: A classifier in evaluation mode whose last affine layer gives the logits.
        columns: Names from `GRAD_COLUMNS`.

    Raises:
        ConfigError: A column is unknown, the model is in training mode, or it has no last affine
            layer.
    """

    def __init__(self, model: nn.Module, columns: Sequence[str]) -> None:
        check_columns(columns)
        training = [name for name, module in model.named_modules() if module.training]
        if training:
            raise ConfigError(
                f"model must be in evaluation mode, got training in {training[0] or 'itself'!r}. "
                "Call model.eval()."
            )
        self._model, self._columns = model, tuple(columns)
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise ConfigError("model must end in a Linear layer, got none.")
        self._last = layers[-1]

    def score(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the columns, float32 `[B]` each, and the logits `[B, C]`.

        Args:
            images: What the model takes, `[B, ...]`.
            labels: Classes, int64 `[B]`.
        """
        logits, last_input = self._forward(images)
        norms: dict[str, Tensor] = {}
        if LAST_LAYER_COLUMN in self._columns:
            error = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
            norms[LAST_LAYER_COLUMN] = error.norm(dim=1) * last_input.norm(dim=1)
        if "grad_l2_weights" in self._columns:
            norms["grad_l2_weights"] = self._weight_norms(images, labels)
        return norms, logits

    @torch.no_grad()
    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self._model(images)
        finally:
            hook.remove()
        return logits, seen[-1]

    def _weight_norms(self, images: Tensor, labels: Tensor) -> Tensor:
        parameters = {name: p.detach() for name, p in self._model.named_parameters()}
        weights = {n: p for n, p in parameters.items() if "bias" not in n.rpartition(".")[2]}
        others = {n: p for n, p in parameters.items() if n not in weights}
        others |= dict(self._model.named_buffers())

        def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self._model, {**weights, **others}, (image[None],))
            return F.cross_entropy(logits, label[None])

        per_example = vmap(grad(loss), in_dims=(None, 0, 0))
        norms = []
        for start in range(0, len(images), CHUNK_SIZE):
            chunk = slice(start, start + CHUNK_SIZE)
            gradients = per_example(weights, images[chunk], labels[chunk])
            squares = [g.flatten(1).square().sum(1) for g in gradients.values()]
            norms.append(torch.stack(squares).sum(0).sqrt())
        return torch.cat(norms)
