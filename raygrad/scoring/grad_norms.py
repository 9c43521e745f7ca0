"""Per-example gradient norms of any classifier, in one forward and one lean backward pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError, unknown_name
from raygrad.scoring.audit import SHRINK, Audit, refuse_nonlinear
from raygrad.scoring.collect import ForwardChangedError
from raygrad.scoring.columns import (
    GRAD_COLUMNS,
    asks_for,
    check_columns,
)
from raygrad.scoring.cost import device_class
from raygrad.scoring.direction import direction_of
from raygrad.scoring.fallback import fallback_norms, gradients_of, hooks_backward, single_run
from raygrad.scoring.labels import check_images
from raygrad.scoring.losses import Loss
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.plan import Plan, backward, run_sites
from raygrad.scoring.prepare import prepare, refuse_modules
from raygrad.scoring.probes import is_channels_last
from raygrad.scoring.reductions import reduce_gradient
from raygrad.scoring.running import own_parameters, widened
from raygrad.scoring.strays import StrayParameterError
from raygrad.scoring.ties import is_tie, nudged, precision_of
from raygrad.scoring.totals import totals
from raygrad.scoring.verdicts import Verdicts
from raygrad.scoring.verify import is_half
from raygrad.scoring.wrappers import uncompiled, unwrapped


@dataclass(frozen=True)
class GradNorms:
    """What one batch gave."""

    norms: dict[str, Tensor]
    """Each asked column, float32 ``[B]``."""
    logits: Tensor
    """The logits of the same forward pass, ``[B, C]``, detached: ``example_scores`` takes them."""


@dataclass(frozen=True)
class Prepared:
    """What a scorer has prepared for a model, without the model."""

    plans: dict[object, Plan]
    """Plans by what they are made for."""
    audits: dict[object, Audit]
    """The audits of each."""


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
        self._audits: dict[object, Audit] = {}
        self.calls = 0
        """A hash of the calls of the last batch's forward pass; 0 where examples ran alone."""

    def score(self, images: Tensor, labels: Tensor, *, later: Verdicts | None = None) -> GradNorms:
        """Scores one batch.

        Args:
            images: ``[B, ...]``, on the model's device and in its type.
            labels: int64 ``[B]``, classes ``0..C-1``; or what the loss takes, a row an example:
                shares of classes ``[B, C]`` for cross-entropy.
            later: Takes the checks whose outcome is on the device, which then is not waited for
                once everything is prepared; to be read before the norms are used.

        Returns:
            The norms of each example, and the logits of the same forward pass.

        Raises:
            ConfigError: The model cannot have per-example gradients in its present mode, the
                shapes or types are wrong, the loss mixes examples, or ``trainable`` is asked for
                where no parameter requires a gradient.
            DataError: A label is not a class.
        """
        images = check_images(images, labels)
        refuse_modules(self._model)
        with torch.inference_mode(False), uncompiled():
            images = images.clone() if images.is_inference() else images
            parameters = own_parameters(self._model)
            key = self._key(images, parameters)
            try:
                plan, result = self._followed(images, labels, parameters, later, key)
                return self._audited(plan, images, labels, parameters, result, later, key)
            except StrayParameterError as stray:
                raise stray.refusal() from None

    def _followed(
        self, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        later: Verdicts | None, key: object,
    ) -> tuple[Plan, GradNorms]:  # fmt: skip
        """Scores by the plan for such images, or by another where the forward pass has changed."""
        plan = self._plan(images, parameters, key=key)
        try:
            return plan, self._pass(plan, images, labels, parameters, later)
        except ForwardChangedError:
            # The model was changed since, or what it calls depends on the images.
            self._plans.clear()
            self._audits.clear()
        plan = self._plan(images, parameters, key=key)
        try:
            return plan, self._pass(plan, images, labels, parameters, later)
        except ForwardChangedError:
            plan = self._plan(images, parameters, alone=True, key=key)
            return plan, self._pass(plan, images, labels, parameters, later)

    def _audited(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        result: GradNorms, later: Verdicts | None, key: object,
    ) -> GradNorms:  # fmt: skip
        """Compares one example with itself scored alone, now and then: see ``Audit``."""
        audit = self._audits.setdefault(key, Audit())
        if plan.alone:
            if audit.first and not is_half(result.logits):
                audit.count += 1
                refuse_nonlinear(*self._two_sizes(plan, images[:1], labels[:1], parameters))
            return result
        if audit.first:
            # A plan is trusted after its first audit, which is waited for.
            later = None
        at = audit.chosen(result.logits, later, plan.price, both_ends=plan.both_ends)
        if at is None:
            return result
        one, calls = slice(at, at + 1), self.calls
        bare = replace(plan, alone=True, sites={}, unused=frozenset(),
                       fallback=dict.fromkeys(plan.needed, plan.loop))  # fmt: skip
        if audit.first:
            # At another size of the direction: a backward pass that is linear takes no notice.
            shrink = 1.0 if is_half(result.logits) else SHRINK
            alone = self._bare(bare, images[one], labels[one], parameters, shrink)
        else:
            alone = self._pass(plan, images[one], labels[one], parameters, later)
        self.calls = calls
        first = audit.first

        def tie() -> bool:
            return self._is_tie(plan, bare, (images, labels), at, parameters,
                                _gap(result.norms, alone.norms, at), by_loop=first)  # fmt: skip

        if audit.agrees(result.norms, result.logits, alone.norms, alone.logits, at, later, tie):
            again = (plan, images, labels, parameters, result, later, key)
            return self._audited(*again) if first else result
        # The logits are right and the norms are not: the size of a gradient changes more than its
        # size, or the plan was made for other images.
        if not is_half(result.logits):
            refuse_nonlinear(*self._two_sizes(bare, images[one], labels[one], parameters))
        plan = self._plan(images, parameters, alone=True, key=key)
        return self._pass(plan, images, labels, parameters, later)

    def _is_tie(
        self, plan: Plan, bare: Plan, batch: tuple[Tensor, Tensor], at: int,
        parameters: Mapping[str, Tensor], gap: dict[str, Tensor], *, by_loop: bool,
    ) -> bool:  # fmt: skip
        """Whether an example's norms in its batch and alone differ by a tie of rounding."""
        images, labels = batch
        one, wide, tensors = images[at : at + 1], plan.in_float64(), widened(parameters)
        label, lone, calls = labels[at : at + 1], bare.in_float64(), self.calls
        precision = precision_of(images)

        def both() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            whole = self._pass(wide, images.double(), labels, tensors, None).norms
            if by_loop:
                alone = self._bare(lone, one.double(), label, tensors, SHRINK)
            else:
                alone = self._pass(wide, one.double(), label, tensors, None)
            return {name: column[at : at + 1] for name, column in whole.items()}, alone.norms

        def moved(draw: int) -> dict[str, Tensor]:
            others, near = nudged(tensors, one.double(), precision, draw)
            return self._bare(lone, near, label, others, 1.0).norms

        found = images.is_floating_point() and is_tie(gap, both, moved)
        self.calls = calls
        return found

    def _two_sizes(
        self, plan: Plan, image: Tensor, label: Tensor, parameters: Mapping[str, Tensor]
    ) -> list[dict[str, Tensor]]:
        """The norms of one example by the plain loop, for two sizes of the direction."""
        sizes = (1.0, SHRINK)
        return [self._bare(plan, image, label, parameters, size).norms for size in sizes]

    def _bare(
        self, plan: Plan, image: Tensor, label: Tensor, parameters: Mapping[str, Tensor],
        shrink: float,
    ) -> GradNorms:  # fmt: skip
        """One example by the plain loop; by itself where the copy's zero gradient becomes NaN."""
        found = self._alone(plan, image, label, parameters, None, shrink)
        finite = all(bool(column.isfinite().all()) for column in found.norms.values())
        if finite or plan.loop == "single":
            return found
        return self._alone(replace(plan, loop="single"), image, label, parameters, None, shrink)

    def prepared(self) -> "Prepared":
        """What was prepared so far; nothing in it refers to the model."""
        nothing = nn.Module()
        plans = {
            key: replace(plan, runner=replace(plan.runner, model=nothing))
            for key, plan in self._plans.items()
        }
        return Prepared(plans, self._audits)

    def adopt(self, prepared: "Prepared", *, audited: bool) -> None:
        """Takes what another scorer of the same columns prepared for the same model.

        Args:
            prepared: What it prepared.
            audited: Whether no tensor of the model was written to since; otherwise an example of
                the next batch is compared with the plain loop.
        """
        self._plans = {
            key: replace(plan, runner=replace(plan.runner, model=self._model))
            for key, plan in prepared.plans.items()
        }
        self._audits = prepared.audits if audited else {}

    def explain(self, images: Tensor) -> str:
        """Tells how each layer's norms are found, with the predicted cost of an example.

        Args:
            images: A batch like those to be scored; one image is enough.
        """
        from raygrad.scoring.explain import describe

        images = check_images(images, torch.zeros(len(images), dtype=torch.int64))
        with torch.inference_mode(False), uncompiled():
            on = device_class(images.device.type)
            return describe(self._plan(images, own_parameters(self._model)), on)

    def _plan(
        self, images: Tensor, parameters: Mapping[str, Tensor], *, alone: bool = False,
        key: object = None,
    ) -> Plan:  # fmt: skip
        key = key or self._key(images, parameters)
        if key not in self._plans or alone:
            plan = prepare(
                self._model, parameters, images, self.columns, self._last_layer, self._methods,
                self._trainable(), alone=alone,
            )  # fmt: skip
            if plan.last_layer is None and asks_for(self.columns, "last_layer_weights"):
                raise ConfigError(
                    "one affine layer must make the logits, got "
                    f"{', '.join(plan.candidates) or 'none'}. Name it with last_layer=."
                )
            self._plans[key] = plan
        return self._plans[key]

    def _key(self, images: Tensor, parameters: Mapping[str, Tensor]) -> object:
        """What a plan is made for; images of another kind need another."""
        device = images.device.type
        return (
            self._trainable(),
            images.shape[1:],
            images.dtype,
            images.device,
            is_channels_last(images),
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
            tuple(module.training for module in self._model.modules()),
            tuple((name, tensor.shape) for name, tensor in parameters.items()),
        )

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
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        later: Verdicts | None,
    ) -> GradNorms:  # fmt: skip
        if plan.alone:
            return self._alone(plan, images, labels, parameters, later)
        if plan.never_one and len(images) == 1:
            result = self._pass(
                plan, torch.cat([images, images]), torch.cat([labels, labels]), parameters, later
            )
            norms = {name: column[:1] for name, column in result.norms.items()}
            return GradNorms(norms, result.logits[:1])
        if plan.channels_last:
            images = images.to(memory_format=torch.channels_last)
        logits, collector, anchor, stand_ins = run_sites(plan, parameters, images)
        self.calls = collector.calls
        direction, scale = direction_of(self._loss, logits, labels, later)
        partials, reached = backward(plan, logits, direction, collector, anchor, stand_ins)
        fallback = {**plan.fallback, **dict.fromkeys(sorted(reached), plan.loop)}
        for method in sorted(set(fallback.values())):
            needed = {n: plan.needed[n] for n, how in fallback.items() if how == method}
            partials.update(
                fallback_norms(plan.runner, images, direction, parameters, needed, method)
            )
        norms = totals(plan, partials, self.columns, scale, self._trainable())
        return GradNorms(norms, logits.detach())

    def _alone(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        later: Verdicts | None, shrink: float = 1.0,
    ) -> GradNorms:  # fmt: skip
        """Scores each example by itself, by ordinary autograd.

        The direction that is carried back is shrunk by a power of two, and the norms grown.
        """
        self.calls = 0
        rows = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            twice = plan.loop == "loop"
            output, leaves = single_run(plan.runner, image, parameters, twice)
            logits = output[:1].detach()
            direction, scale = direction_of(self._loss, logits, label, later)
            direction, scale = direction * shrink, scale / shrink
            if not hooks_backward(plan.runner.model):
                leaves = {name: leaves[name] for name in plan.needed}
            found = gradients_of(output, direction, leaves)
            partials = {
                name: reduce_gradient(
                    torch.zeros_like(leaves[name])[None] if g is None else g[None].clone(),
                    plan.needed[name],
                )
                for name, g in found.items()
                if name in plan.needed
            }
            rows.append(
                GradNorms(totals(plan, partials, self.columns, scale, self._trainable()), logits)
            )
        norms = {name: torch.cat([row.norms[name] for row in rows]) for name in self.columns}
        return GradNorms(norms, torch.cat([row.logits for row in rows]))


def _gap(norms: Mapping[str, Tensor], alone: Mapping[str, Tensor], at: int) -> dict[str, Tensor]:
    """How far the norms of one example of a batch are from those that it has alone."""
    return {n: (norms[n][at : at + 1] - alone[n]).abs().double() for n in norms}
