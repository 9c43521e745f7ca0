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
from raygrad.scoring.fingerprint import Fingerprint, Sample, versions
from raygrad.scoring.labels import check_images
from raygrad.scoring.looking import gap_of, looks_right, tie_of_rounding
from raygrad.scoring.losses import Loss
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.passes import GradNorms, Passes, bare_of
from raygrad.scoring.plan import Plan
from raygrad.scoring.prepare import prepare, refuse_modules
from raygrad.scoring.probes import is_channels_last
from raygrad.scoring.running import own_parameters
from raygrad.scoring.strays import StrayParameterError
from raygrad.scoring.trial import refusing
from raygrad.scoring.verdicts import Verdicts
from raygrad.scoring.verify import is_half
from raygrad.scoring.wrappers import uncompiled, unwrapped

TURNS = 8
"""How often a batch may make other calls before that is no longer asked about: it may always."""


@dataclass(frozen=True)
class Prepared:
    """What a scorer has prepared for a model, without the model."""

    plans: dict[object, Plan]
    """Plans by what they are made for."""
    audits: dict[object, Audit]
    """The audits of each."""
    unseen: frozenset[object] = frozenset()
    """What plans are for by which no batch of several images was looked over."""


class GradNormScorer:
    r"""Scores batches by the norms of their examples' own loss gradients.

    .. math:: \lVert \nabla_\theta L_i \rVert_q, \qquad L_i = -\log \mathrm{softmax}(f(x_i))_{y_i}

    (or another loss) for q in 1, 2, infinity and the parameter subsets of Vodrahalli, Li and Malik
    (arXiv 1811.12569, section 4.1), exact up to rounding, for every example of a batch at once.
    The backward pass computes input gradients only; each parametric call adds its own parameters'
    norms on the way (after Goodfellow, arXiv 1510.01799, for linear layers; Rochette, Manoel and
    Tramel, arXiv 1912.06015, for convolutions). Nothing of the size batch x parameters is ever
    held, and no example's score depends on the batch it is in, up to rounding.

    Of a first batch all examples are compared with themselves in another order, and some alone;
    later one now and then, and one where weights were written to since the batch before.

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
        self._passes = Passes(self.columns, self._loss, self._trainable)
        self._unseen: set[object] = set()
        """What plans are for by which no batch was looked over yet."""
        self._sample = Sample(self._model)
        self._written: tuple[list[int], bytes] | None = None
        """How often the model's tensors had been written to at the last batch, and some of them."""
        self._heard: dict[tuple[int, int], int] = {}
        """The calls of the first batch of each form."""
        self._prints: dict[object, Fingerprint] = {}
        """The model when each plan was made."""
        self._turns = 0
        """How often a batch of a known form has made other calls."""

    @property
    def calls(self) -> int:
        """A hash of the calls of the last batch's forward pass; 0 where examples ran alone."""
        return self._passes.calls

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
            self._notice_writes()
            parameters = own_parameters(self._model)
            key = self._key(images, parameters)
            try:
                plan, result = self._followed(images, labels, parameters, later, key)
                if self._has_turned(plan, key, len(images)):
                    plan, result = self._followed(images, labels, parameters, later, key)
                    self._heard[id(plan), len(images)] = self.calls
                result = self._audited(plan, images, labels, parameters, result, later, key)
                return self._looked_over(images, labels, parameters, result, key)
            except StrayParameterError as stray:
                raise stray.refusal() from None
            except ConfigError:
                # What was refused is refused again, if it is asked for.
                self._audits.pop(key, None)
                raise

    def _notice_writes(self) -> None:
        """Trusts no plan before its next audit where the model's tensors were written to."""
        now = (versions(self._model), self._sample.now())
        if now != self._written:
            if self._written is not None:
                self._audits = {}
            self._written = now

    def _has_turned(self, plan: Plan, key: object, size: int) -> bool:
        """Whether a batch made other calls than one like it, of a model that was changed since.

        Then nothing that was prepared is kept.
        """
        # By the plan's number: keys are long.
        heard = self._heard.setdefault((id(plan), size), self.calls)
        if heard == self.calls or self._turns >= TURNS or key not in self._prints:
            return False
        self._turns += 1
        if self._prints[key] == Fingerprint(self._model):
            # Numbers or shapes that depend on the images.
            return False
        self._plans.clear()
        self._audits.clear()
        self._heard.clear()
        return True

    def _followed(
        self, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        later: Verdicts | None, key: object,
    ) -> tuple[Plan, GradNorms]:  # fmt: skip
        """Scores by the plan for such images, or by another where the forward pass has changed."""
        plan = self._plan(images, parameters, key=key)
        try:
            return plan, self._passes.batch(plan, images, labels, parameters, later)
        except RuntimeError as error:
            known = key not in self._unseen or plan.alone
            if known or is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                raise
            # A backward pass of the model's own that needs gradients of all that it was given.
            with refusing(images):
                plan = self._plan(images, parameters, alone=True, key=key)
                return plan, self._passes.batch(plan, images, labels, parameters, later)
        except ForwardChangedError:
            # The model was changed since, or what it calls depends on the images.
            self._plans.clear()
            self._audits.clear()
            self._heard.clear()
        plan = self._plan(images, parameters, key=key)
        try:
            return plan, self._passes.batch(plan, images, labels, parameters, later)
        except ForwardChangedError:
            plan = self._plan(images, parameters, alone=True, key=key)
            return plan, self._passes.batch(plan, images, labels, parameters, later)

    def _audited(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        result: GradNorms, later: Verdicts | None, key: object,
    ) -> GradNorms:  # fmt: skip
        """Compares one example with itself scored alone, now and then: see ``Audit``."""
        audit = self._audits.setdefault(key, Audit())
        if plan.alone:
            if audit.first and not is_half(result.logits):
                audit.count += 1
                refuse_nonlinear(*self._passes.two_sizes(plan, images[:1], labels[:1], parameters))
            return result
        if audit.first:
            # A plan is trusted after its first audit, which is waited for.
            later = None
        at = audit.chosen(result.logits, later, plan.price, both_ends=plan.both_ends)
        if at is None:
            return result
        one, calls, bare = slice(at, at + 1), self.calls, bare_of(plan)
        if audit.first:
            # At another size of the direction: a backward pass that is linear takes no notice.
            shrink = 1.0 if is_half(result.logits) else SHRINK
            alone = self._passes.bare(bare, images[one], labels[one], parameters, shrink)
        else:
            alone = self._passes.batch(plan, images[one], labels[one], parameters, later)
        self._passes.calls = calls
        first = audit.first

        def tie() -> bool:
            gap = gap_of(result.norms, alone.norms, at)
            return tie_of_rounding(self._passes, plan, (images, labels), at, parameters, gap,
                                   by_loop=first)  # fmt: skip

        if audit.agrees(result.norms, result.logits, alone.norms, alone.logits, at, later, tie):
            again = (plan, images, labels, parameters, result, later, key)
            return self._audited(*again) if first else result
        # The logits are right and the norms are not: the size of a gradient changes more than its
        # size, or the plan was made for other images.
        if not is_half(result.logits):
            refuse_nonlinear(*self._passes.two_sizes(bare, images[one], labels[one], parameters))
        plan = self._plan(images, parameters, alone=True, key=key)
        return self._passes.batch(plan, images, labels, parameters, later)

    def _looked_over(
        self, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        result: GradNorms, key: object,
    ) -> GradNorms:  # fmt: skip
        """Compares all of a plan's first batch with itself in another order: see ``looking``."""
        if not self._unseen or key not in self._unseen or len(images) < 2:
            return result
        plan = self._plans[key]
        if plan.alone or looks_right(self._passes, plan, (images, labels), parameters, result):
            self._unseen.discard(key)
            return result
        plan = self._plan(images, parameters, alone=True, key=key)
        return self._passes.batch(plan, images, labels, parameters)

    def prepared(self) -> "Prepared":
        """What was prepared so far; nothing in it refers to the model."""
        nothing = nn.Module()
        plans = {
            key: replace(plan, runner=replace(plan.runner, model=nothing))
            for key, plan in self._plans.items()
        }
        return Prepared(plans, self._audits, frozenset(self._unseen))

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
        self._unseen = set(prepared.unseen)

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
            self._unseen.add(key)
            self._prints[key] = Fingerprint(self._model)
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
