"""What a field says of itself beside its value, and the checks that sections share.

A field declares, as metadata, which identity it belongs to and what becomes of a change of it where
its stage is complete. Everything that has to know, the binding of run folders, the digests of
stages, the help and the page of all fields, asks `declared`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from raygrad.errors import ConfigError

Identity = Literal["results", "execution"]
OnChange = Literal["refused", "ignored", "acted on"]

EXECUTION: dict[str, Any] = {"identity": "execution", "on_change": "ignored"}
"""Metadata of a field that says how work is done, not what comes out of it."""

ACTED_ON: dict[str, Any] = {"on_change": "acted on"}
"""Metadata of a field of the results whose change, in a complete run, makes more of them."""

BASIC: dict[str, Any] = {"basic": True}
"""Metadata of a field that `--help` shows; all others stand in `--help-all`. Joined by ``|``."""


@dataclass(frozen=True)
class Declaration:
    """What a field declares."""

    identity: Identity
    """results: it decides what comes out. execution: it says how the work is done."""
    on_change: OnChange
    """What becomes of a change of it in a run where its stage is complete: it is refused by name,
    ignored with a line, or acted on (more is done, and nothing that is there is lost)."""
    basic: bool
    """Whether `--help` shows it."""


def declared(section: Any, field: dataclasses.Field[Any]) -> Declaration:
    """Returns what a field of a section declares; a section may say what its fields do by default.

    Args:
        section: The section's class, or an instance of it.
        field: One of its fields.
    """
    found = {"on_change": getattr(section, "ON_CHANGE", "refused"), **field.metadata}
    identity = found.get("identity", "results")
    return Declaration(identity, found["on_change"], bool(found.get("basic", False)))


def require(holds: bool, rule: str, value: object, remedy: str = "") -> None:
    """Raises ConfigError, "<rule>, got <value>. <remedy>", unless the rule holds."""
    if not holds:
        raise ConfigError(f"{rule}, got {value!r}." + (f" {remedy}" if remedy else ""))


def positive(name: str, value: float) -> None:
    """Raises ConfigError unless a value is above 0 and finite."""
    require(value > 0 and math.isfinite(value), f"{name} must be positive", value)


def fraction(name: str, value: float) -> None:
    """Raises ConfigError unless a value is in (0, 1]."""
    require(0 < value <= 1, f"{name} must be in (0, 1]", value, "Give the share that is kept.")
