"""Per-example gradient norms of any classifier, in one forward and one lean backward pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError, unknown_name
from raygrad.scoring.collect import Collector, ForwardChangedError
from raygrad.scoring.columns import (
    GRAD_COLUMNS,
    asks_for,
    check_columns,
    group_of,
    split_column,
)
from raygrad.scoring.fallback import fallback_norms
from raygrad.scoring.labels import check_labels
from raygrad.scoring.losses import Loss
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.plan import Plan, backward, run_sites
from raygrad.scoring.prepare import prepare, refuse_modules
from raygrad.scoring.reductions import Partial, combine
from raygrad.scoring.wrappers import uncompiled, unwrapped


@dataclass(frozen=True)
class GradNorms:
    """What one batch gave."""

    norms: dict[str, Tensor]
    """Each asked column, float32 ``[B]``."""
    logits: Tensor
    """The logits of the same forward pass, ``[B, C]``, detached: ``example_scores`` takes them."""


class GradNormScorer:
    r"""Scores batches by the norms of their examples' own loss gradients.

    .. math:: \lVert \nabla_\theta L_i \rVert_q, \qquad L_i = -\log \mathrm{softmax}(f(x_i))_{y_i}

    (or another loss) for q in 1, 2, infinity and the parameter subsets of Vodrahalli, Li and Malik
    (arXiv 1811.12569, section 4.1), exact up to rounding, for every example of a batch at once.
    The backward pass computes input gradients only; each parametric call adds its own parameters'
    norms on the way (after Goodfellow, arXiv 1510.01799, for linear layers; Rochette, Manoel and
    Tramel, arXiv 1912.06015, for convolutions). Nothing of the size batch x parameters is ever
    held, and no example's score depends on the batch it is in, up to rounding.

    The model is never changed: its parameters are swapped for detached aliases of themselves
    during the pass. Frozen parameters count as all others do, except in the subset ``trainable``:
    the parameters that require a gradient at the time of the call.

    Args:
        model: A classifier from images ``[B, ...]`` to logits ``[B, C]``, as it is to be scored:
            in eval mode, on its device. Wrappers (compiled, data-parallel) are seen through.
        columns: Gradient-norm columns, of ``GRAD_COLUMNS``.
        last_layer: Path of the module that makes the logits; found by itself where there is one.
        methods: Methods by module path or parameter name, to override the cost model's choice.
            ``explain`` prints what is chosen.
        loss: The loss whose gradient is meant, cross-entropy by default: a name of
            `raygrad.scoring.losses` such as ``label_smoothing=0.1``, or any function of logits
            ``[B, C]`` and labels to ``[B]`` or to the sum over examples; see `OwnLoss`.

    Raises:
        ConfigError: A column or a module is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        columns: Iterable[str] = ("grad_l2_weights",),
        *,
        last_layer: str | None = None,
        methods: Mapping[str, str] | None = None,
        loss: str | Loss | None = None,
    ) -> None:
        self.columns = check_columns(columns, GRAD_COLUMNS)
        self._model = unwrapped(model)
        self._last_layer = last_layer
        self._loss = find_loss(loss)
        self._methods = dict(methods or {})
        known = {name for name, _ in self._model.named_parameters()}
        known |= {name.rpartition(".")[0] for name in known}
        for name in self._methods:
            if name not in known:
                raise ConfigError(unknown_name("a layer with a method", name, known))
        self._plans: dict[object, Plan] = {}
        self.calls = 0
        """A hash of the calls of the last forward pass; 0 where they were not followed."""
        self._convolves = any(isinstance(m, nn.Conv2d) for m in self._model.modules())
        self._takes_channels_last: bool | None = None

    def score(self, images: Tensor, labels: Tensor) -> GradNorms:
        """Scores one batch.

        Args:
            images: ``[B, ...]``, on the model's device and in its type.
            labels: int64 ``[B]``, classes ``0..C-1``; or what the loss takes, a row an example:
                shares of classes ``[B, C]`` for cross-entropy.

        Returns:
            The norms of each example, and the logits of the same forward pass.

        Raises:
            ConfigError: The model cannot have per-example gradients in its present mode, the
                shapes or types are wrong, the loss mixes examples, or ``trainable`` is asked for
                where no parameter requires a gradient.
            DataError: A label is not a class.
        """
        images = _check_images(images, labels)
        refuse_modules(self._model)
        with torch.inference_mode(False), uncompiled():
            images = images.clone() if images.is_inference() else images
            images = self._laid_out(images)
            parameters = {name: tensor.detach() for name, tensor in self._model.named_parameters()}
            try:
                return self._pass(self._plan(images, parameters), images, labels, parameters)
            except ForwardChangedError:
                # The model was changed since; a second change within one batch is an error.
                self._plans.clear()
                return self._pass(self._plan(images, parameters), images, labels, parameters)

    def prepared(self) -> dict[object, Plan]:
        """What was prepared so far; nothing in it refers to the model."""
        return dict(self._plans)

    def adopt(self, prepared: Mapping[object, Plan]) -> None:
        """Takes what another scorer of the same columns prepared for the same, unchanged model."""
        self._plans = dict(prepared)

    def explain(self, images: Tensor) -> str:
        """Tells how each layer's norms are found, with the predicted cost of an example.

        Args:
            images: A batch like those to be scored; one image is enough.
        """
        from raygrad.scoring.explain import describe

        images = _check_images(images, torch.zeros(len(images), dtype=torch.int64))
        parameters = {name: tensor.detach() for name, tensor in self._model.named_parameters()}
        with uncompiled():
            return describe(self._plan(self._laid_out(images), parameters))

    def _laid_out(self, images: Tensor) -> Tensor:
        """Puts the images channels-last where convolutions and pooling then run faster.

        On a CPU pooling is several times faster so, and a patch's rows are runs of memory; a
        model that insists on the plain layout (a `view` of its activations) gets it.
        """
        if images.ndim != 4 or images.device.type != "cpu" or not self._convolves:
            return images
        candidate = images.to(memory_format=torch.channels_last)
        if self._takes_channels_last is None:
            try:
                with torch.no_grad():
                    self._model(candidate[:1])
                self._takes_channels_last = True
            except RuntimeError:
                self._takes_channels_last = False
        return candidate if self._takes_channels_last else images

    def _plan(self, images: Tensor, parameters: Mapping[str, Tensor]) -> Plan:
        device = images.device.type
        trainable = self._trainable()
        key = (
            trainable,
            images.shape[1:],
            images.dtype,
            images.device,
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
            tuple(module.training for module in self._model.modules()),
            tuple((name, tensor.shape) for name, tensor in parameters.items()),
        )
        if key not in self._plans:
            plan = prepare(
                self._model, parameters, images, self.columns, self._last_layer, self._methods,
                trainable,
            )  # fmt: skip
            if plan.last_layer is None and asks_for(self.columns, "last_layer_weights"):
                raise ConfigError(
                    "one affine layer must make the logits, got "
                    f"{', '.join(plan.candidates) or 'none'}. Name it with last_layer=."
                )
            self._plans[key] = plan
        return self._plans[key]

    def _trainable(self) -> frozenset[str]:
        """The parameters that require a gradient now, where a column asks for them."""
        if not asks_for(self.columns, "trainable"):
            return frozenset()
        names = (name for name, p in self._model.named_parameters() if p.requires_grad)
        trainable = frozenset(names)
        if not trainable:
            raise ConfigError(
                "a trainable column must have parameters that require a gradient, got a model "
                "without any. Unfreeze some, or ask for all, weights or biases."
            )
        return trainable

    def _pass(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor]
    ) -> GradNorms:
        if plan.mixed:
            # What the model makes of a batch is not what it makes of its examples.
            with torch.no_grad():
                logits = torch.cat([self._model(image) for image in images.split(1)])
            collector, anchor, stand_ins = Collector(), images, parameters
        else:
            logits, collector, anchor, stand_ins = run_sites(plan, self._model, parameters, images)
        self.calls = collector.calls
        self._loss.check(logits, labels)
        direction = self._loss.gradient(logits.detach(), labels)
        # Every norm is linear in the direction: carried back at unit size, the gradients of
        # confidently right examples underflow in no type and no square.
        scale = direction.abs().amax(1, keepdim=True)
        direction = direction / torch.where(scale > 0, scale, 1.0)
        partials = backward(plan, logits, direction, collector, anchor, stand_ins)
        for method in sorted(set(plan.fallback.values())):
            needed = {n: plan.needed[n] for n, how in plan.fallback.items() if how == method}
            partials.update(
                fallback_norms(self._model, images, direction, parameters, needed, method)
            )
        norms = _columns(plan, partials, self.columns, scale[:, 0], self._trainable())
        return GradNorms(norms, logits.detach())


def _columns(
    plan: Plan,
    partials: Mapping[str, Partial],
    columns: Iterable[str],
    scale: Tensor,
    trainable: frozenset[str],
) -> dict[str, Tensor]:
    missing = set(plan.needed) - set(partials)
    assert not missing, f"no norm was found for {sorted(missing)}"
    norms = {}
    for column in columns:
        norm, subset = split_column(column)
        names = [
            name
            for name in plan.needed
            if subset in ("all", group_of(name))
            or (subset == "last_layer_weights" and name in (plan.last_layer or ()))
            or (subset == "trainable" and name in trainable)
        ]
        if names:
            total = combine([partials[name] for name in names], norm)
            norms[column] = (total * scale).float()
        else:
            norms[column] = torch.zeros_like(scale, dtype=torch.float32)
    return norms


def _check_images(images: Tensor, labels: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim < 1 or len(images) == 0:
        got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ConfigError(
            f"images must be a tensor [B, ...] with at least one example, got {got}. "
            "Stack the examples along the first dimension."
        )
    if not isinstance(labels, Tensor) or labels.ndim == 0 or len(labels) != len(images):
        check_labels(labels, len(images))
    return images.detach()
