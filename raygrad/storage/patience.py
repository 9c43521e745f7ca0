"""How long storage that has never answered is waited for.

A server that answered a moment ago is out for a while and is waited for; one that never did is, to
who has just started a command, most likely a wrong address. Workers wait in either case: the
command that sent them has had its answer.
"""

import contextlib
from collections.abc import Hashable, Iterator

FIRST_ANSWER_S = 5.0
"""How long a command waits for its first answer of a server."""

_answered: set[Hashable] = set()
_first_answer_s: float | None = None


@contextlib.contextmanager
def of_a_command() -> Iterator[None]:
    """While the context lasts, a server that has never answered this process is soon given up."""
    global _first_answer_s
    before, _first_answer_s = _first_answer_s, FIRST_ANSWER_S
    try:
        yield
    finally:
        _first_answer_s = before


def note_answer(server: Hashable) -> None:
    """Notes that a server, named by all that leads to it, has answered, be it with a refusal."""
    _answered.add(server)


def first_answer_s(server: Hashable) -> float | None:
    """Returns how long the first answer of a server is waited for, None for as long as any."""
    return None if server in _answered else _first_answer_s
