"""Values from Python as the fields of a section hold them: as strictly as a command line's."""

import functools
import os
from collections.abc import Collection, Iterable
from numbers import Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from raygrad.errors import ConfigError

_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@functools.cache
def _kinds(section: type) -> dict[str, Any]:
    return get_type_hints(section)


def fitted(section: type, name: str, value: object) -> Any:
    """Returns a value as a field of a section holds it.

    Numbers of NumPy become Python's, paths text, and several values a tuple.

    Args:
        section: The section's class.
        name: The field.
        value: What was given; of a field of several values, any collection or the only one.

    Raises:
        ConfigError: The field cannot hold it.
    """
    kind = _kinds(section)[name]
    try:
        return _as(kind, value)
    except ValueError as error:
        raise ConfigError(f"{name} must be {_words(kind)}, got {value!r}.") from error


def _as(kind: Any, value: object) -> Any:
    """Returns a value as one of a kind; ValueError where it is none."""
    if get_origin(kind) is tuple:
        return tuple(_as(get_args(kind)[0], one) for one in _several(value))
    if get_origin(kind) is Literal:
        plain = value.item() if isinstance(value, np.generic) else value
        if any(type(plain) is type(one) and plain == one for one in get_args(kind)):
            return plain
        raise ValueError(value)
    if type(None) in get_args(kind):
        return None if value is None else _as(_beside_none(kind), value)
    return _one(kind, value)


def _one(kind: Any, value: Any) -> Any:
    """Returns a value as a plain one: text, a switch or a number."""
    if kind is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    is_switch = isinstance(value, bool | np.bool_)
    if kind is bool and is_switch:
        return bool(value)
    is_number = kind in (int, float) and isinstance(value, Real) and not is_switch
    if is_number and (kind is float or float(value).is_integer()):
        return kind(value)
    raise ValueError(value)


def _several(value: object) -> Iterable[object]:
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # in one order, whatever the process hashes by
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value)
    if isinstance(value, Collection) and not isinstance(value, str | bytes | np.ndarray):
        return value
    return [value]


def _beside_none(kind: Any) -> Any:
    return Union[tuple(one for one in get_args(kind) if one is not type(None))]  # noqa: UP007


def _words(kind: Any) -> str:
    """Returns what a kind of value is called."""
    if get_origin(kind) is tuple:
        return f"{_words(get_args(kind)[0])}, or several in a list"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(repr(one) for one in get_args(kind))}"
    if type(None) in get_args(kind):
        return f"{_words(_beside_none(kind))} or None"
    return _WORDS[kind]
