"""Networks that kill or fail the process that trains them, as `module:callable`.

The name tells what happens and holds, in hexadecimal, the folder whose files count the times.
"""

import os
import random
import signal
import time
from pathlib import Path

from torch import nn

from raygrad.training import ranks
from raygrad.training.networks import linear
from tests.engine.score.scoring_cases import is_bad_node

MODULE = "tests.engine.score.faulty_networks"
STEPS = 25


def name(kind: str, folder: Path, times: int) -> str:
    """Returns the name of a network that goes wrong in the middle of `times` trainings.

    Args:
        kind: `kills` and `raises` do so in the second step; `kills_ranks` SIGKILLs rank r of the
            first `times` ranks once, in step `(r + 1) * STEPS` of its process; `slow` takes its
            time and never goes wrong; `bad_place` takes its time too, and its GPU fails for ever on
            the node that `RAYGRAD_TEST_BAD_NODE` names; `killed_at` SIGKILLs rank 0, the last rank
            and rank 0 again, each after a number of steps of all processes together that `moments`
            draws.
        folder: The folder that counts.
        times: How often.
    """
    return f"{MODULE}:{kind}-{times}-{str(folder).encode().hex()}".replace("-", "__")


def moments(seed: int) -> list[int]:
    """Returns after how many steps of a rank, over all its processes, `killed_at` kills it."""
    return sorted(random.Random(seed).sample(range(10, 60), 3))


def steps_done(folder: Path, rank: int = 0) -> int:
    """Returns how many steps a rank of `killed_at` began, over all its processes."""
    return (folder / f"{rank}.steps").stat().st_size


def __getattr__(attribute: str):
    kind, _, rest = attribute.partition("__")
    if kind not in ("kills", "raises", "kills_ranks", "killed_at", "slow", "bad_place"):
        raise AttributeError(attribute)
    times, _, folder = rest.partition("__")
    return lambda spec: Faulty(linear(spec), kind, int(times), Path(bytes.fromhex(folder).decode()))


class Faulty(nn.Module):
    """Goes wrong in the middle of training, unless it has gone wrong often enough."""

    def __init__(self, network: nn.Module, kind: str, times: int, folder: Path) -> None:
        super().__init__()
        self._network, self._kind, self._times, self._folder = network, kind, times, folder
        self._steps = 0

    def forward(self, images):
        self._steps += self.training
        if self.training:
            self._go_wrong()
        return self._network(images)

    def _go_wrong(self) -> None:
        if self._kind in ("slow", "bad_place"):
            time.sleep(0.02)
            if self._kind == "bad_place" and is_bad_node():
                raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        elif self._kind == "killed_at":
            self._count_and_die()
        elif self._kind == "kills_ranks":
            rank = ranks.rank()
            if rank < self._times and self._steps == STEPS * (rank + 1) and self._is_first(rank):
                os.kill(os.getpid(), signal.SIGKILL)
        elif self._steps == 2 and any(self._is_first(at) for at in range(self._times)):
            if self._kind == "kills":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the network is broken on purpose")

    def _count_and_die(self) -> None:
        rank, last = ranks.rank(), ranks.world_size() - 1
        with open(self._folder / f"{rank}.steps", "ab") as counter:
            counter.write(b".")
        for at, moment in enumerate(moments(self._times)):
            is_me = rank == (0, last, 0)[at]
            if is_me and steps_done(self._folder, rank) == moment and self._is_first(at):
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_first(self, fault: int) -> bool:
        try:
            (self._folder / f"{fault}.fault").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
