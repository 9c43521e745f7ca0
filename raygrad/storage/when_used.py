"""Modules that are imported when something of them is used, and not before."""

import importlib.util
import sys
from types import ModuleType


def when_used(name: str) -> ModuleType:
    """Returns a module that is run at the first use of one of its attributes.

    Args:
        name: Its full name; an error of its import comes at that first use.

    Raises:
        ModuleNotFoundError: There is no such module.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"a module must exist, got {name}.", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
