"""The user's own code by name, ``module:callable``: found from the current folder too.

Without torch: a recipe by name is looked up before anything is known to need it.
"""

import importlib
import os
import sys
from typing import Any

from raygrad.errors import ConfigError


def imported(name: str, kind: str) -> Any:
    """Returns what ``module:name`` names; modules of the current folder are found as well.

    Args:
        name: The name.
        kind: What it stands for, for the error text.

    Raises:
        ConfigError: There is no such module, it does not load, or it has no such name.
    """
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        remedy = "Run where the module can be imported, or name it from here: folder.file:callable."
        if module.endswith(".py"):
            remedy = f"Name it without .py: {module[:-3].replace('/', '.')}:{attribute}."
        raise ConfigError(
            f"{kind} must name an importable module:callable, got {name!r} ({first_line(error)}). "
            f"{remedy}"
        ) from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        there = [n for n, value in vars(found).items() if callable(value) and n[0] != "_"]
        listed = f" It has {', '.join(sorted(there)[:8])}." if there else ""
        raise ConfigError(
            f"{kind} must name a callable of its module, got {name!r} ({error}).{listed}"
        ) from error
    return found


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
