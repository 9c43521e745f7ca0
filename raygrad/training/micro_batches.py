"""A step's forward and backward passes, in as many parts as memory asks for."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from raygrad.errors import ResourceError
from raygrad.scoring.chunks import let_go
from raygrad.scoring.out_of_memory import is_out_of_memory

log = logging.getLogger("raygrad")


@final
class MicroBatches:
    """Runs the passes of a step on parts of its batch, whose gradients add up.

    The step is the same but for rounding and for batch normalisation, whose statistics are those
    of a part. Where memory does not suffice the parts are halved, from then on, and the step is
    begun again as if nothing had been: buffers and random numbers are put back.

    Ranks wait for each other in a step, so that none may begin one again by itself: each finds
    its size before the first, on the bare network.

    Args:
        network: The bare network.
        size: Examples of a part, at most; 0 is all that a rank has.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        self.size = size
        """Examples of a part; 0 while it is all that a rank has."""
        self.found = 0
        """The size that memory has asked for, where it is another than the one that was given."""
        self._network = network
        self._is_fitted = False
        self._buffers: list[Tensor] = []

    def restore(self, found: Sequence[int], rank: int, world_size: int) -> None:
        """Goes on with a size that memory asked for before: batch normalisation goes by it.

        Args:
            found: What each rank had `found`; none of a state of before it was saved.
            rank: This one, which goes on with its own where there are as many as before, and else
                with the smallest.
            world_size: How many there are now.
        """
        sizes = [found[rank]] if len(found) == world_size else [one for one in found if one]
        self.found = min(sizes, default=0)
        if self.found:
            self.size = min(self.size or self.found, self.found)

    def run(
        self,
        ddp: nn.Module,
        count: int,
        passes: Callable[[nn.Module, slice], None],
        clear: Callable[[], None],
    ) -> None:
        """Runs the passes of all parts.

        Args:
            ddp: The bare network, or what syncs its gradients over ranks.
            count: Examples of this rank's batch.
            passes: Runs a network forward and backward on some rows of the batch.
            clear: Forgets what passes have left: gradients and losses.

        Raises:
            ResourceError: Memory does not hold one example, or not what it held before.
        """
        alone = ddp is self._network
        if not alone and not self._is_fitted:
            if next(self._network.parameters()).device.type == "cuda":
                self._try(count, lambda rows, _: passes(self._network, rows), clear)
                self._put_back()
            self._is_fitted = True

        def synced(rows: slice, is_last: bool) -> None:
            wait = contextlib.nullcontext() if alone or is_last else ddp.no_sync()  # type: ignore[operator]  # of DDP
            with wait:
                passes(ddp, rows)

        self._try(count, synced, clear, may_halve=alone)

    def _try(
        self,
        count: int,
        run: Callable[[slice, bool], None],
        clear: Callable[[], None],
        *,
        may_halve: bool = True,
    ) -> None:
        self._keep()
        while True:
            clear()
            parts = self._parts(count)
            try:
                for rows in parts:
                    run(rows, rows is parts[-1])
                return
            except RuntimeError as error:
                self._halve(count, error, may_halve)
            # Outside of the handler: its traceback keeps the tensors of the pass alive.
            clear()
            let_go()
            self._put_back()

    def _parts(self, count: int) -> Sequence[slice]:
        size = self.size or count
        return [slice(at, min(at + size, count)) for at in range(0, count, size)]

    def _halve(self, count: int, error: RuntimeError, may_halve: bool) -> None:
        if not is_out_of_memory(error):
            raise error
        size, reason = min(self.size or count, count), str(error).splitlines()[0]
        if size == 1 or not may_halve:
            raise ResourceError(
                f"memory must hold the passes of {size} examples, got: {reason}. "
                + ("Train another network, or smaller images." if size == 1 else
                   f"Give micro_batch={max(1, size // 2)}.")
            ) from error  # fmt: skip
        self.size = self.found = size // 2
        normalised = any(
            isinstance(one, nn.modules.batchnorm._BatchNorm) for one in self._network.modules()
        )
        log.warning(
            "train: a step's passes take %d examples at a time from now on%s: %s",
            self.size,
            ", and batch normalisation goes by those" if normalised else "; the steps are the same",
            reason,
        )

    def _keep(self) -> None:
        buffers = list(self._network.buffers())
        if len(self._buffers) != len(buffers):
            self._buffers = [buffer.clone() for buffer in buffers]
        elif buffers:
            torch._foreach_copy_(self._buffers, buffers)
        self._random = torch.get_rng_state()
        if torch.cuda.is_initialized():
            self._random_on_gpu = torch.cuda.get_rng_state()

    def _put_back(self) -> None:
        for buffer, kept in zip(self._network.buffers(), self._buffers, strict=True):
            buffer.copy_(kept)
        torch.set_rng_state(self._random)
        if torch.cuda.is_initialized():
            torch.cuda.set_rng_state(self._random_on_gpu)
