"""`--help` that fits a screen: the flags to begin with, a line each; `--help-all` shows all."""

import inspect
import os
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any

import tyro

from raygrad.config.declaring import declared
from raygrad.config.page import field_texts

ALL = "--help-all"
_SHORT = ("--help", "-h")
HELP = frozenset((ALL, *_SHORT))
"""The flags that ask for help."""
_WIDTHS = 80, 110
"""The fewest and the most columns that are filled."""
_CLAUSE = re.compile("[,;:] ")
_FLAGS_WIDTH, _DEFAULT_WIDTH, _CLAUSE_WIDTH = 30, 20, 14
_WORDS = {str: "STR", int: "INT", float: "FLOAT"}


def parsed(kind: Any, args: Sequence[str], **options: Any) -> Any:
    """Returns what `tyro.cli` makes of arguments; a short help shows the basic flags alone.

    Args:
        kind: A command.
        args: The command line.
        options: As of `tyro.cli`.
    """
    if ALL not in args and any(arg in args for arg in _SHORT):
        prog = options.get("prog") or os.path.basename(sys.argv[0])
        print("\n".join(command_help(kind, prog, options.get("default"))))
        raise SystemExit(0)
    return tyro.cli(kind, args=["--help" if arg == ALL else arg for arg in args], **options)


def all_commands(commands: Mapping[str, Any], description: str) -> list[str]:
    """Returns the help of the command as a whole: its subcommands, a line each."""
    lines = ["usage: raygrad COMMAND [FLAGS]", "", description.strip(), ""]
    for name, kind in commands.items():
        lines.append(_two_columns(f"  {name}", inspect.getdoc(kind) or "", "", 12))
    return [*lines, "", "raygrad COMMAND --help shows its flags; raygrad --version the version."]


def command_help(kind: Any, prog: str, default: Any = None) -> list[str]:
    """Returns the short help of a command, line by line.

    Args:
        kind: Its class, whose fields are its flags.
        prog: How it is called.
        default: An instance that holds other defaults, such as a run's or a job's own.
    """
    groups = _groups(kind, default)
    flagless = [flag for _, flags in groups for flag in flags if flag.word]
    words = [flag.word for flag in sorted(flagless, key=lambda flag: flag.word != "[SOURCE]")]
    longest = max(len(flag.name) for _, flags in groups for flag in flags)
    width = min(longest, _FLAGS_WIDTH) + 4
    lines = [f"usage: {' '.join([prog, *words])} [FLAGS]", ""]
    lines += (inspect.getdoc(kind) or "").splitlines()
    for heading, flags in groups:
        lines += ["", *heading]
        for flag in flags:
            lines.append(_two_columns(f"  {flag.name}", flag.text, flag.default, width))
    return [*lines, "", f"{ALL} shows every flag and all that it means."]


@dataclass(frozen=True)
class _Flag:
    """A flag, or a word without one, as a line of help shows it."""

    name: str
    text: str
    default: str
    """In brackets, or that it is needed; empty where it says nothing."""
    word: str
    """How the line of usage shows a word without a flag."""


def _groups(kind: Any, default: Any) -> list[tuple[list[str], list[_Flag]]]:
    """Returns the flags of a command: its own, then each section's below a heading."""
    hints = typing.get_type_hints(kind, include_extras=True)
    holder = default if is_dataclass(default) else None
    own: list[_Flag] = []
    groups: list[tuple[list[str], list[_Flag]]] = [([], own)]
    for field in fields(kind):
        hint = hints[field.name]
        section = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if not is_dataclass(section):
            own.append(_flag(kind, field, hint, "", _default(field, holder)))
            continue
        prefix = "" if _is_marked(hint, tyro.conf.OmitArgPrefixes) else f"{field.name}."
        found = _section_flags(section, prefix, getattr(holder, field.name, None))
        if section.__module__.startswith("raygrad.cli"):
            own += found
        elif found:
            groups.append(([f"{field.name}: {_first_sentence(inspect.getdoc(section))}"], found))
    return groups


def _section_flags(section: Any, prefix: str, holder: Any) -> list[_Flag]:
    """Returns the basic fields of a section; all of one that declares nothing."""
    hints = typing.get_type_hints(section, include_extras=True)
    is_own = section.__module__.startswith("raygrad.cli")
    return [
        _flag(section, field, hints[field.name], prefix, _default(field, holder))
        for field in fields(section)
        if is_own or declared(section, field).basic
    ]


def _flag(owner: Any, field: Field[Any], hint: Any, prefix: str, default: Any) -> _Flag:
    settings = [one for one in _metadata(hint) if hasattr(one, "aliases")]
    name = next((one.name for one in settings if one.name), field.name).replace("_", "-")
    text = next((one.help for one in settings if one.help), "") or _texts(owner)[field.name]
    is_word, is_needed = _is_marked(hint, tyro.conf.Positional), default is MISSING
    shown = "" if is_needed or default in (None, "", (), False) else _shown(default)
    return _Flag(
        name.upper() if is_word else f"--{prefix}{name} {_metavar(hint)}".rstrip(),
        text,
        " (needed)" if is_needed else f" ({shown})" if 0 < len(shown) < _DEFAULT_WIDTH else "",
        (name.upper() if is_needed else f"[{name.upper()}]") if is_word else "",
    )


def _two_columns(left: str, text: str, default: str, width: int) -> str:
    """Returns a flag and what fits beside it of its text: whole clauses where there are any."""
    low, high = _WIDTHS
    room = min(max(shutil.get_terminal_size((low, 0)).columns, low), high)
    start = left.ljust(width) if len(left) < width else f"{left} "
    left_over = room - len(start) - len(default)
    sentence = _first_sentence(text)
    if len(sentence) > left_over:
        ends = [match.start() for match in _CLAUSE.finditer(sentence[: left_over + 2])]
        clause = sentence[: ends[-1]] if ends else ""
        words = textwrap.shorten(sentence, max(left_over, 12), placeholder="...")
        sentence = clause if len(clause) > _CLAUSE_WIDTH else words
    return start + sentence + default


def _texts(owner: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__[:-1]):
        found |= field_texts(one)
    return found


def _default(field: Field[Any], holder: Any) -> Any:
    if holder is not None and not _is_missing(found := getattr(holder, field.name, MISSING)):
        return found
    made = field.default_factory
    return field.default if made is MISSING else made()


def _is_missing(value: Any) -> bool:
    """Tells whether a default is the parser's word for none."""
    return value is MISSING or value is tyro.MISSING or value is tyro.MISSING_NONPROP


def _metadata(hint: Any) -> tuple[Any, ...]:
    """Returns what an annotation holds beside its type, within an optional one too."""
    found = getattr(hint, "__metadata__", ())
    inner = typing.get_args(hint) if not found else ()
    return found + tuple(one for part in inner for one in getattr(part, "__metadata__", ()))


def _is_marked(hint: Any, marker: Any) -> bool:
    """Tells whether an annotation is of a marker of tyro's, as ``Positional[int]`` is."""
    return any(one in _metadata(hint) for one in _metadata(marker[int]))


def _metavar(hint: Any) -> str:
    if typing.get_origin(hint) is Annotated:
        return _metavar(typing.get_args(hint)[0])
    args = [one for one in typing.get_args(hint) if one not in (type(None), Ellipsis)]
    if typing.get_origin(hint) is tuple:
        return f"{_metavar(args[0])}..."
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(map(str, args))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _metavar(args[0])
    return _WORDS.get(hint, "")


def _first_sentence(text: str | None) -> str:
    joined = " ".join((text or "").split("\n\n")[0].split())
    return joined.split(". ")[0].rstrip(".")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
