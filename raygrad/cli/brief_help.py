"""`--help` that fits a screen: the flags to begin with; `--help-all` shows every one."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Annotated, Any

import tyro

from raygrad.config import DataConfig, ScoreConfig, SelectConfig, SweepConfig, TrainConfig
from raygrad.config.declaring import declared

ALL = "--help-all"
_SHORT = ("--help", "-h")
_SECTIONS: tuple[Any, ...] = (DataConfig, TrainConfig, ScoreConfig, SelectConfig, SweepConfig)


def parsed(kind: Any, args: Sequence[str], **options: Any) -> Any:
    """Returns what `tyro.cli` makes of arguments; a short help shows the basic flags alone.

    Args:
        kind: What is parsed.
        args: The command line.
        options: As of `tyro.cli`.
    """
    asks_all = ALL in args
    is_brief = not asks_all and any(arg in args for arg in _SHORT)
    given = ["--help" if arg == ALL else arg for arg in args]
    with _hidden() if is_brief else contextlib.nullcontext():
        try:
            return tyro.cli(kind, args=given, **options)
        finally:
            if is_brief and len(args) > 1:
                print(f"These are the flags to begin with; {ALL} shows every one.")


@contextlib.contextmanager
def _hidden() -> Iterator[None]:
    """Takes the fields that are not basic out of the flags; nothing is parsed meanwhile."""
    before = [dict(section.__annotations__) for section in _SECTIONS]
    try:
        for section in _SECTIONS:
            for field in fields(section):
                if not declared(section, field).basic:
                    kind: Any = section.__annotations__[field.name]
                    section.__annotations__[field.name] = Annotated[kind, tyro.conf.Suppress]
        yield
    finally:
        for section, annotations in zip(_SECTIONS, before, strict=True):
            section.__annotations__.update(annotations)
