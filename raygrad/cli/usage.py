"""Wrong usage in one line: what the parser says in a box of many."""

import re

_BORDERS = "│╭╮╰╯─ "
_MOST = 4
"""So many flags that are like the given one are named."""


def one_line(said: str, prog: str) -> str:
    """Returns what the parser said of a command line, without the texts of the flags it names.

    Args:
        said: Its box: blocks between rules, flags indented, their texts indented further.
        prog: The command, whose help tells more.
    """
    parts = []
    for block in _blocks(said):
        head = " ".join(line.strip() for line in block if not line.startswith(" "))
        head = re.sub(r"'\('(--[^']+)',\)'", r"'\1'", head)  # as tyro 1.0 names a flag
        flags = ["/".join(_names(line)) for line in block if line.startswith("    -")]
        if head.startswith(("For full helptext", "Argument helptext")):
            continue
        named = ", ".join(dict.fromkeys(flags[:_MOST]))
        parts.append(f"{head.rstrip('.')} {named}".strip())
    return f"{'. '.join(parts) or 'the line must be as the help says'}. See {prog} --help."


def _names(line: str) -> list[str]:
    """Returns a flag's names, the one that the help shows last."""
    return [word.rstrip(",") for word in line.split() if word.startswith("--")]


def _blocks(said: str) -> list[list[str]]:
    """Returns the lines of each part of a box, without its borders."""
    blocks: list[list[str]] = [[]]
    for line in said.splitlines():
        if line.startswith("│"):
            inner = line[2:].rstrip(_BORDERS)
            if inner:
                blocks[-1].append(inner)
            else:
                blocks.append([])
    return [block for block in blocks if block]
