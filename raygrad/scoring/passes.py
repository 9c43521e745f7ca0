"""Scores images by a plan that is given: all at once, or each by itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raygrad.scoring.audit import SHRINK
from raygrad.scoring.direction import direction_of
from raygrad.scoring.fallback import fallback_norms, gradients_of, hooks_backward, single_run
from raygrad.scoring.losses import NamedLoss
from raygrad.scoring.plan import Plan, backward, run_sites
from raygrad.scoring.reductions import reduce_gradient
from raygrad.scoring.totals import totals
from raygrad.scoring.verdicts import Verdicts


@dataclass(frozen=True)
class GradNorms:
    """What one batch gave."""

    norms: dict[str, Tensor]
    """Each asked column, float32 ``[B]``."""
    logits: Tensor
    """The logits of the same forward pass, ``[B, C]``, detached: ``example_scores`` takes them."""


class Passes:
    """Passes over images for some columns and a loss.

    Args:
        columns: The columns.
        loss: The loss.
        trainable: Tells the parameters of the subset of this name.
    """

    def __init__(
        self, columns: tuple[str, ...], loss: NamedLoss, trainable: Callable[[], frozenset[str]]
    ) -> None:
        self._columns, self._loss, self._trainable = columns, loss, trainable
        self.calls = 0
        """A hash of the calls of the last forward pass; 0 where examples ran alone."""

    def sizes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sizes of the loss's gradients at the logits, ``[B]``: norms are in proportion."""
        return direction_of(self._loss, logits, labels, None)[1]

    def batch(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        later: Verdicts | None = None, shrink: float = 1.0,
    ) -> GradNorms:  # fmt: skip
        """Scores a batch by its plan.

        Args:
            plan: The plan.
            images: ``[B, ...]``.
            labels: What the loss takes, a row an example.
            parameters: The model's parameters by name.
            later: Takes the checks whose outcome is on the device.
            shrink: A power of two by which directions are shrunk on their way, and norms grown.

        Raises:
            ForwardChangedError: The forward pass has not made the calls that the plan knows.
        """
        if plan.alone:
            return self.alone(plan, images, labels, parameters, later, shrink)
        if plan.never_one and len(images) == 1:
            result = self.batch(
                plan, torch.cat([images, images]), torch.cat([labels, labels]), parameters, later,
                shrink,
            )  # fmt: skip
            norms = {name: column[:1] for name, column in result.norms.items()}
            return GradNorms(norms, result.logits[:1])
        if plan.channels_last:
            images = images.to(memory_format=torch.channels_last)
        logits, collector, anchor, stand_ins = run_sites(plan, parameters, images)
        self.calls = collector.calls
        direction, scale = direction_of(self._loss, logits, labels, later)
        if shrink != 1:
            direction, scale = direction * shrink, scale / shrink
        partials, reached = backward(plan, logits, direction, collector, anchor, stand_ins)
        fallback = {**plan.fallback, **dict.fromkeys(sorted(reached), plan.loop)}
        for method in sorted(set(fallback.values())):
            needed = {n: plan.needed[n] for n, how in fallback.items() if how == method}
            partials.update(
                fallback_norms(plan.runner, images, direction, parameters, needed, method)
            )
        norms = totals(plan, partials, self._columns, scale, self._trainable())
        return GradNorms(norms, logits.detach())

    def alone(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        later: Verdicts | None = None, shrink: float = 1.0,
    ) -> GradNorms:  # fmt: skip
        """Scores each example by itself, by ordinary autograd; see `batch`."""
        self.calls = 0
        rows = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            copies = int(plan.loop == "loop")
            output, leaves = single_run(plan.runner, image, parameters, copies)
            logits = output[:1].detach()
            direction, scale = direction_of(self._loss, logits, label, later)
            direction, scale = direction * shrink, scale / shrink
            chosen = leaves if hooks_backward(plan.runner.model) else plan.needed
            found = gradients_of(plan.runner, output, direction, leaves, chosen)
            partials = {
                name: reduce_gradient(
                    torch.zeros_like(leaves[name])[None] if g is None else g[None].clone(),
                    plan.needed[name],
                )
                for name, g in found.items()
                if name in plan.needed
            }
            rows.append(
                GradNorms(totals(plan, partials, self._columns, scale, self._trainable()), logits)
            )
        norms = {name: torch.cat([row.norms[name] for row in rows]) for name in self._columns}
        return GradNorms(norms, torch.cat([row.logits for row in rows]))

    def bare(
        self, plan: Plan, image: Tensor, label: Tensor, parameters: Mapping[str, Tensor],
        shrink: float,
    ) -> GradNorms:  # fmt: skip
        """One example by the plain loop; by itself where the copy's zero gradient becomes NaN."""
        found = self.alone(plan, image, label, parameters, None, shrink)
        finite = all(bool(column.isfinite().all()) for column in found.norms.values())
        if finite or plan.loop == "single":
            return found
        return self.alone(replace(plan, loop="single"), image, label, parameters, None, shrink)

    def two_sizes(
        self, plan: Plan, image: Tensor, label: Tensor, parameters: Mapping[str, Tensor]
    ) -> list[dict[str, Tensor]]:
        """The norms of one example by the plain loop, for two sizes of the direction."""
        sizes = (1.0, SHRINK)
        return [self.bare(plan, image, label, parameters, size).norms for size in sizes]

    def halves(
        self, plan: Plan, images: Tensor, labels: Tensor, parameters: Mapping[str, Tensor],
        shrink: float = 1.0,
    ) -> GradNorms:  # fmt: skip
        """Scores a batch again, in two halves that run backwards; see `batch`.

        Returns:
            What came, in the order of the images.
        """
        back = torch.arange(len(images) - 1, -1, -1, device=images.device)
        calls, parts = self.calls, back.split((len(images) + 1) // 2)
        found = [self.batch(plan, images[p], labels[p], parameters, None, shrink) for p in parts]
        self.calls = calls
        names = found[0].norms
        norms = {name: torch.cat([part.norms[name] for part in found])[back] for name in names}
        return GradNorms(norms, torch.cat([part.logits for part in found])[back])


def bare_of(plan: Plan) -> Plan:
    """The plan of the plain loop for one example, of the same norms."""
    return replace(plan, alone=True, sites={}, unused=frozenset(),
                   fallback=dict.fromkeys(plan.needed, plan.loop))  # fmt: skip
