"""How long storage that has never answered is waited for.

A server that answered a moment ago is out for a while and is waited for; one that never did is, to
who has just started a command, most likely a wrong address. Workers wait in either case: the
command that sent them has had its answer.

So it is with a refusal: to a command that was never let in it is a matter of set-up. One that was
let in a moment ago waits, as for an outage: tokens expire, and are renewed. Workers do not wait
here, for those that sent them know better how long.
"""

import contextlib
from collections.abc import Hashable, Iterator

FIRST_ANSWER_S = 5.0
"""How long a command waits for its first answer of a server."""

_answered: set[Hashable] = set()
_let_in: set[Hashable] = set()
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


def note_let_in(*places: Hashable) -> None:
    """Notes that places, named by who asks and for what, have given what they were asked for."""
    _let_in.update(places)


def was_let_in(place: Hashable) -> bool:
    """Tells a command whether a place that refuses it now gave it what it asked for before."""
    return _first_answer_s is not None and place in _let_in
