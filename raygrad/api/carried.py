"""What a run folder's stored settings lend to a command line, and what they do not.

A stage on its own works as it was configured before. But some settings belong to another: the
checkpoint is of the network that it was given with, the tars are in place of a source. Where a line
names another network, the old checkpoint is not meant by it; it is left, and that is said.

Whether a value stands on the line or was only lent is told by the object itself: the parser hands
on the very default that it was given.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from raygrad.config import StudyConfig
from raygrad.errors import ConfigError

log = logging.getLogger("raygrad")

SECTIONS = frozenset(("data", "train", "score", "select", "sweep"))
"""What a run folder lends of its configuration."""


@dataclass(frozen=True)
class _Pair:
    """Settings that are of another one, and are not lent once that one is given."""

    section: str
    name: str
    """The setting that is given on the line."""
    left: tuple[str, ...]
    """What was given with its old value, and goes back to its default."""
    kept: tuple[str, ...] = ()
    """What may or may not be of its old value: it stays, and is said."""


_PAIRS = (
    _Pair(
        "score",
        "network",
        ("checkpoint", "fresh_weights"),
        kept=("num_classes", "image_size", "resize", "keep_aspect", "mean", "std", "loss"),
    ),
    _Pair("score", "checkpoint", ("fresh_weights",)),
    _Pair("score", "fresh_weights", ("checkpoint",)),
    _Pair("train", "network", ("start_from",)),
    _Pair("data", "source", ("tars", "test_tars", "data_dir", "labels", "image", "renumber")),
    _Pair("data", "data_dir", ("tars", "test_tars", "labels", "image", "renumber")),
    _Pair("data", "tars", ("source", "data_dir")),
    _Pair("select", "score_run", ("score_network",)),
)
_ALTERNATIVES = (("data", "source", "tars"), ("data", "data_dir", "tars"))
"""Settings of which a line gives one."""


def as_before(tars: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    """Returns names of data as the run has them, where a slash at the end is all that differs."""
    same = [one.rstrip("/") for one in tars] == [one.rstrip("/") for one in before]
    return before if same else tars


class _Lent(str):
    """A stored string that is one object of its own, whatever the interpreter shares."""


def lent(stored: StudyConfig) -> StudyConfig:
    """Returns a stored configuration whose strings can be told from those of a command line."""
    return replace(
        stored,
        **{
            section: replace(
                getattr(stored, section),
                **{
                    f.name: _Lent(value)
                    for f in dataclasses.fields(getattr(stored, section))
                    if type(value := getattr(stored, section).__dict__[f.name]) is str
                },
            )
            for section in SECTIONS
        },
    )


def settled(section: str, parsed: Any, stored: Any, args: Sequence[str]) -> Any:
    """Returns a section as the line means it: without what was lent and belongs to other values.

    Args:
        section: Its name.
        parsed: What the parser made of the line, with the stored section as its defaults.
        stored: The section of `lent`.
        args: The command line; a switch can only be looked up in it.

    Raises:
        ConfigError: The line gives two settings of which one excludes the other.
    """
    line = _Line(parsed, stored, args)
    for _, one, other in (a for a in _ALTERNATIVES if a[0] == section):
        if line.gives(one) and line.gives(other):
            raise ConfigError(
                f"data must be a {one} or {other}, got both: {getattr(parsed, one)!r} and "
                f"{_shown(getattr(parsed, other))}. Leave one of them."
            )
    defaults, found = type(parsed)(), parsed
    for pair in (one for one in _PAIRS if one.section == section and line.changes(one.name)):
        left, kept = (
            [n for n in names if not line.gives(n) and getattr(found, n) != getattr(defaults, n)]
            for names in (pair.left, pair.kept)
        )
        _tell(pair, found, left, kept)
        found = replace(found, **{name: getattr(defaults, name) for name in left})
    return _plain(found)


@dataclass(frozen=True)
class _Line:
    """Which settings of a section stand on a command line."""

    parsed: Any
    stored: Any
    args: Sequence[str]

    def gives(self, name: str) -> bool:
        """Tells whether a setting is given, and is not empty."""
        now = getattr(self.parsed, name)
        if isinstance(now, bool):
            return now and any(a.endswith(name.replace("_", "-")) for a in self.args)
        return bool(now) and now is not getattr(self.stored, name)

    def changes(self, name: str) -> bool:
        """Tells whether what is given is not what was stored; a source replaces tars."""
        now, was = getattr(self.parsed, name), getattr(self.stored, name)
        if name in ("source", "data_dir") and self.stored.tars:
            return self.gives(name) and as_before((now,), self.stored.tars) is not self.stored.tars
        return self.gives(name) and now != was


def _tell(pair: _Pair, section: Any, left: list[str], kept: list[str]) -> None:
    """Says what is left and what is kept of the run's settings."""
    parts = []
    for names, what in ((left, "not used with it"), (kept, "kept")):
        if names:
            values = ", ".join(f"{name} {_shown(getattr(section, name))}" for name in names)
            parts.append(f"the run's {values} {'is' if len(names) == 1 else 'are'} {what}")
    if parts:
        now = _shown(getattr(section, pair.name))
        log.info("%s: %s is now %s; %s", pair.section, pair.name, now, "; ".join(parts))


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(section: Any) -> Any:
    """Returns a section whose strings are plain ones again."""
    values = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
    return replace(section, **{n: str(v) for n, v in values.items() if isinstance(v, _Lent)})
