"""Sees through what is wrapped around a model."""

import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def uncompiled() -> AbstractContextManager[object]:
    """Keeps compiled models from being compiled for the pass: its code runs as it is written."""
    if "torch._dynamo" not in sys.modules:
        # Nothing can be compiled before the compiler is there, and to import it takes seconds.
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside compilation and data-parallel wrappers."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]  # a compiled module's own
        else:
            return model
