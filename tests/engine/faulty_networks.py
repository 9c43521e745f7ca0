"""Networks that kill or fail the process that trains them, as `module:callable`.

The name tells what happens and holds, in hexadecimal, the folder whose files count the times.
"""

import os
import signal
from pathlib import Path

from torch import nn

from raygrad.training.networks import linear

MODULE = "tests.engine.faulty_networks"


def name(kind: str, folder: Path, times: int) -> str:
    """Returns the name of a network that goes wrong in the middle of `times` trainings."""
    return f"{MODULE}:{kind}_{times}_{str(folder).encode().hex()}"


def __getattr__(attribute: str):
    kind, _, rest = attribute.partition("_")
    if kind not in ("kills", "raises"):
        raise AttributeError(attribute)
    times, _, folder = rest.partition("_")
    return lambda spec: Faulty(linear(spec), kind, int(times), Path(bytes.fromhex(folder).decode()))


class Faulty(nn.Module):
    """Goes wrong in the second step of training, unless it has gone wrong often enough."""

    def __init__(self, network: nn.Module, kind: str, times: int, folder: Path) -> None:
        super().__init__()
        self._network, self._kind, self._times, self._folder = network, kind, times, folder
        self._steps = 0

    def forward(self, images):
        self._steps += self.training
        if self._steps == 2 and self.training:
            self._go_wrong()
        return self._network(images)

    def _go_wrong(self) -> None:
        for at in range(self._times):
            try:
                (self._folder / f"{at}.fault").touch(exist_ok=False)
            except FileExistsError:
                continue
            if self._kind == "kills":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the network is broken on purpose")
