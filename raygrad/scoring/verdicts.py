"""Checks whose outcome is on a device: gathered there, and read when it is waited for anyway."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor


@final
class Verdicts:
    """What must not be true, and the error that says so, until somebody reads.

    To ask a GPU for one truth is to wait for all that it was given to do before. A pass that hands
    its checks over goes on; whoever reads at the end of a shard waits once.
    """

    def __init__(self) -> None:
        self._wrong: list[Tensor] = []
        self._errors: list[Callable[[], Exception | None]] = []

    def __len__(self) -> int:
        return len(self._wrong)

    def expect_not(self, wrong: Tensor, error: Callable[[], Exception | None]) -> None:
        """Takes a check.

        Args:
            wrong: A bool on the device, ``[]``.
            error: Makes the error, where it is true, or looks closer and finds none; it may read
                from the device.
        """
        self._wrong.append(wrong)
        self._errors.append(error)

    def read(self) -> None:
        """Waits for the device once, and forgets what was right.

        Raises:
            Exception: The error of the first check that is true.
        """
        wrong, errors = self._wrong, self._errors
        self._wrong, self._errors = [], []
        if not wrong:
            return
        for is_wrong, error in zip(torch.stack(wrong).tolist(), errors, strict=True):
            found = error() if is_wrong else None
            if found is not None:
                raise found
