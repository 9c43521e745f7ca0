"""Modules that are imported when something of them is used, and not before."""

import importlib
import importlib.util
from typing import Any


class WhenUsed:
    """Stands for a module, which is imported at the first use of one of its attributes.

    Python's own import is what imports it, under the lock that it has: several threads may come
    first, which `importlib.util.LazyLoader` does not bear before Python 3.12.

    Args:
        name: The module's full name.

    Raises:
        ModuleNotFoundError: There is no such module.
    """

    def __init__(self, name: str) -> None:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"a module must exist, got {name}.", name=name)
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
