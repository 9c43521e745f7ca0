"""Compares an example's scores in its batch with those of the same example scored alone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.apart import DEPENDS
from raygrad.scoring.cost import CPU, device_class
from raygrad.scoring.verdicts import Verdicts
from raygrad.scoring.verify import differ, is_half, near

EVERY = 500
"""Images between two audits: a shard of 1,000 has one of its first batch and one or two later."""

EVERY_ON_GPU = 5000
"""The same where a pass of one image takes nearly as long as one of a hundred."""

SHARE = 0.02
"""The most of the time of scoring that later audits may take, where networks are so small that a
pass of one image costs as much as hundreds of images of a batch."""

SIZES = 8
"""Batch sizes of which the first batch is audited; a data set has two, the last batch's with it."""

SHRINK = 2.0**-10
"""The size of the direction in the first audit: a power of two, which changes no bit of a mantissa.

A backward pass that clips or normalises gradients gives other norms for it."""


@dataclass
class Audit:
    """When an example is scored again, alone, and what comes of it.

    The first is of the last example of the first batch, by the plain loop. Later ones (the last
    example of the first batch of each further size, and one every so many images) are by the plan
    itself, on one image; the place of the latter is the first, and then changes from one audit to
    the next.
    """

    count: int = 0
    """Audits made."""
    images: int = 0
    """Images since the last."""
    sizes: set[int] = field(default_factory=set)
    """Batch sizes whose last example was audited: a model may go by places, or by how many there
    are."""
    batches: int = 0
    """Batches since the last audit."""

    @property
    def first(self) -> bool:
        """Whether the audit that is due is the first."""
        return self.count == 0

    def chosen(
        self,
        logits: Tensor,
        later: Verdicts | None = None,
        price: float = 1.0,
        *,
        both_ends: bool = False,
    ) -> int | None:
        """The place of the example to score again; None where no audit is due.

        Args:
            logits: Those of the batch, ``[B, C]``.
            later: Given where the device must not be waited for: an example whose logits are not
                finite is audited then too, and agrees.
            price: What an image costs in a pass of its own, in images of a large batch.
            both_ends: Whether the second audit, of a first example, is due at once.
        """
        size = len(logits)
        self.images += size
        self.batches += 1
        opening = both_ends and self.count == 1
        unseen = size not in self.sizes and len(self.sizes) < SIZES
        due = self.first or opening or unseen or self._long_ago(logits.device.type, price)
        if not due or (size < 2 and not self.first):
            return None
        # Of each size the last example: what goes by places goes wrong at an end.
        last = self.first or (unseen and not opening)
        place = size - 1 if last else (self.count - 1) * 7919 % size
        if later is None and not bool(logits[place].isfinite().all()):
            # What is not finite agrees with everything: the nearest example that is says more.
            finite = logits.isfinite().all(1).nonzero()[:, 0]
            if len(finite) == 0:
                return None
            place = int(finite[(finite - place).abs().argmin()])
        if last or place == size - 1:
            self.sizes.add(size)
        return place

    def _long_ago(self, device: str, price: float) -> bool:
        """Whether enough was scored since the last audit, in images and in what they cost."""
        if device_class(device) is not CPU:
            return self.images >= EVERY_ON_GPU
        spent = self.images + self.batches * (price - 1)
        return self.images >= EVERY and spent >= price / SHARE

    def agrees(
        self,
        norms: Mapping[str, Tensor],
        logits: Tensor,
        alone: Mapping[str, Tensor],
        alone_logits: Tensor,
        at: int,
        later: Verdicts | None = None,
        is_tie: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Whether the norms of the example are those that it has alone.

        Args:
            norms: The columns of the batch, ``[B]`` each.
            logits: Its logits, ``[B, C]``.
            alone: The columns of the example alone, ``[1]`` each.
            alone_logits: Its logits, ``[1, C]``.
            at: Its place in the batch.
            later: Takes what comes of it, in an audit that is not the first.
            is_tie: Asked where norms differ: whether rounding alone decides between them.

        Raises:
            ConfigError: The logits differ, or the norms of a later batch do: numbers that were
                given out before may have been wrong.
        """
        first = self.first
        self.count, self.images, self.batches = self.count + 1, 0, 0
        verdicts = Verdicts() if later is None else later
        if logits.shape[1:] != alone_logits.shape[1:]:
            raise ConfigError(DEPENDS)
        verdicts.expect_not(differ(logits[at : at + 1], alone_logits), lambda: ConfigError(DEPENDS))
        if first:
            verdicts.read()
        names, wrong = list(norms), unlike(norms, alone, at, logits)
        found, exact = _at(norms, at), _at(alone, 0, names)
        if first:
            return not bool(wrong.any()) or is_tie()
        batch = len(logits)
        verdicts.expect_not(
            wrong.any(),
            lambda: None if is_tie() else _depends(names, wrong, found, exact, batch),
        )
        if later is None:
            verdicts.read()
        return True


def unlike(
    norms: Mapping[str, Tensor], alone: Mapping[str, Tensor], at: int, logits: Tensor
) -> Tensor:
    """In which columns an example's norms are not those that it has alone, a bool ``[columns]``.

    Args:
        norms: The columns of its batch, ``[B]`` each.
        alone: The columns of the example alone, ``[1]`` each.
        at: Its place in the batch.
        logits: The batch's, which show in what precision it was computed.
    """
    relative = 0.1 if is_half(logits) else 2e-3
    found, exact = _at(norms, at), _at(alone, 0, list(norms))
    largest = torch.stack([column.double().abs().max() for column in norms.values()])
    return ~((found - exact).abs() <= relative * exact + 1e-6 * largest) & exact.isfinite()


def _at(norms: Mapping[str, Tensor], at: int, names: Iterable[str] | None = None) -> Tensor:
    return torch.stack([norms[name][at].double() for name in names or norms])


def _depends(
    names: list[str], wrong: Tensor, found: Tensor, exact: Tensor, batch: int
) -> ConfigError:
    at = int(wrong.int().argmax())
    return ConfigError(
        f"an example's gradient must not depend on the batch that it is in, got a {names[at]} of "
        f"{float(found[at]):.6g} in a batch of {batch}, and of {float(exact[at]):.6g} alone. Make "
        "the model treat every example apart, or score batches of one."
    )


_UNDERFLOWS = 1e-15
"""Of a smaller norm the square, or that of its 1,024th part, is none that float32 holds."""


def vanishing(name: str, value: float) -> ConfigError:
    """The error for gradients that are too small to be squared.

    Args:
        name: A column.
        value: What it is of an example, or the largest of it that is known.
    """
    return ConfigError(
        f"gradients must be numbers whose squares float32 holds, got a {name} of {value:.3g} (of a "
        "deep network in which they vanish). Score in float64: model.double(), images.double()."
    )


def refuse_nonlinear(norms: Mapping[str, Tensor], shrunk: Mapping[str, Tensor]) -> None:
    """Refuses a model whose backward pass is not linear in the gradient that arrives.

    Args:
        norms: The columns of one example by the plain loop.
        shrunk: The same by a direction of another size, made up for.

    Raises:
        ConfigError: They differ.
    """
    for name, column in norms.items():
        if near(shrunk[name], column, 1e-4):
            continue
        largest = float(column.abs().max())
        if largest < _UNDERFLOWS:
            raise vanishing(name, largest)
        raise ConfigError(
            "the backward pass must be linear in the gradient that arrives, got a model in "
            f"which {name} depends on the loss's scale (gradients that are clipped, normalised "
            "or rounded on the way). Take that out of the model that is scored."
        )
