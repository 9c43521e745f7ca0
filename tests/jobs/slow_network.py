"""A network whose passes take their time, so that a test can do something meanwhile."""

import time

from torch import nn

PASS_S = 0.5


class Slow(nn.Module):
    """A linear classifier that waits before each pass."""

    def __init__(self, spec):
        super().__init__()
        self.head = nn.Linear(spec.channels * spec.height * spec.width, spec.num_classes)

    def forward(self, images):
        time.sleep(PASS_S)
        return self.head(images.flatten(1))
