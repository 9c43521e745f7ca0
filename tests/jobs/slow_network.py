"""A network whose passes take their time, so that a test can do something meanwhile."""

import os
import time

from torch import nn

PASS_S = float(os.environ.get("RAYGRAD_TEST_PASS_S", 0.5))
HURRY = "RAYGRAD_TEST_HURRY"
"""The variable with the path of a file; once it is there, nothing is waited for."""


class Slow(nn.Module):
    """A linear classifier that waits before each pass."""

    def __init__(self, spec):
        super().__init__()
        self.head = nn.Linear(spec.channels * spec.height * spec.width, spec.num_classes)

    def forward(self, images):
        end_s = time.monotonic() + PASS_S
        while time.monotonic() < end_s and not os.path.exists(os.environ.get(HURRY, "")):
            time.sleep(0.05)
        return self.head(images.flatten(1))
