"""raygrad tells you which training examples matter."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raygrad.api.in_memory import score
    from raygrad.api.run import Run

__version__ = "0.2.0"

__all__ = ["Run", "__version__", "score"]

_MODULES = {"Run": "raygrad.api.run", "score": "raygrad.api.in_memory"}


def __getattr__(name: str) -> Any:
    # By name and late: every floor imports this module, and none may bring torch or Ray with it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
