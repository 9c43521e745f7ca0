"""The network of fault schedules: slow enough to be hit in the middle, on a GPU that may break."""

import os
import sys
import time
from pathlib import Path

from torch import nn

PASS_S = 0.25
BROKEN = "RAYGRAD_FAULTS_BROKEN"
"""Names a folder: once it holds a file `on`, the first actor process that passes is on a broken
device, as is each that takes its place up to the number that the file says."""


class Slow(nn.Module):
    """A linear classifier that waits before each pass."""

    def __init__(self, spec):
        super().__init__()
        self.head = nn.Linear(spec.channels * spec.height * spec.width, spec.num_classes)

    def forward(self, images):
        """Returns logits `[B, K]` of images `[B, C, H, W]`.

        Raises:
            RuntimeError: The device is broken, as torch says it.
        """
        if is_broken():
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        time.sleep(PASS_S)
        return self.head(images.flatten(1))


def is_broken() -> bool:
    """Tells whether this process is on the broken device, taking a place on it if there is one.

    The command's own process looks at the network on its CPU, and never is.
    """
    folder = Path(os.environ.get(BROKEN, "/nowhere"))
    if not (folder / "on").exists() or "worker" not in Path(sys.argv[0]).name:
        return False
    if (folder / str(os.getpid())).exists():
        return True
    for place in range(int((folder / "on").read_text())):
        try:
            (folder / f"place-{place}").touch(exist_ok=False)
        except FileExistsError:
            continue
        (folder / str(os.getpid())).touch()
        return True
    return False
