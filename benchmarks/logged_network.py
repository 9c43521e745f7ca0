"""A network whose training steps take a while and are written down, for runs that are killed."""

import os
import time
from pathlib import Path

import ray
import torch
from torch import Tensor, nn

from raygrad.training import ranks
from raygrad.training.models import ImageSpec

STEPS = "RAYGRAD_LOGGED_STEPS"
"""Names the folder whose files `RANK.steps` gain a line a step: seconds, process, node."""
STEP_S = 0.05


class Logged(nn.Module):
    """A linear classifier; its sums do not depend on what is written."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.head = nn.Linear(spec.channels * spec.height * spec.width, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits `[B, K]` of images `[B, C, H, W]`."""
        if self.training and torch.is_grad_enabled():
            self._write()
            time.sleep(STEP_S)
        return self.head(images.flatten(1))

    def _write(self) -> None:
        node = ray.get_runtime_context().get_node_id()
        line = f"{time.monotonic()} {os.getpid()} {node}\n".encode()
        path = Path(os.environ[STEPS]) / f"{ranks.rank()}.steps"
        with open(path, "ab", buffering=0) as steps:
            steps.write(line)
