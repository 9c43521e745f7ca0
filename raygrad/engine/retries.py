"""Whether what failed is tried again: as long as attempts get on, or cannot help where they failed.

A training of many hours on nodes that are taken away fails often, and each attempt goes on from
what the one before has saved; only attempts in a row that saved nothing are held against it.
"""

from collections.abc import Sequence

from raygrad.errors import IncompleteError, RaygradError
from raygrad.storage import files

NODE_LOST = "its node has died"
"""What Ray's error says of an actor whose node was lost, with or without a notice before."""


class Retries:
    """Counts the attempts of one piece of work that failed without having saved anything new.

    Args:
        most: How many of them in a row are followed by another attempt.
        state_url: The file whose every new version means that the work has got on.
        version: Its size and version at the start, as of `files.states`; None where there is none.
    """

    def __init__(self, most: int, state_url: str, version: tuple[int, str] | None) -> None:
        self._most, self._state_url, self._version = most, state_url, version
        self._fruitless = 0

    def goes_on(self, errors: Sequence[BaseException]) -> bool:
        """Tells, of an attempt that failed with these errors, whether there is another one."""
        if final_error(errors) is not None:
            return False
        version = self._look()
        if version is not None and version != self._version:
            self._version, self._fruitless = version, 0
        elif not any(_is_node_lost(error) for error in errors):
            self._fruitless += 1
        return self._fruitless <= self._most

    def _look(self) -> tuple[int, str] | None:
        """Returns size and version of the saved state; None where there is none, or no answer."""
        try:
            return files.states([self._state_url]).get(self._state_url)
        except (OSError, RaygradError):
            return None


def final_error(errors: Sequence[BaseException]) -> RaygradError | None:
    """Returns the error that every other attempt would meet again, None where none is known.

    What raygrad finds wrong with the recipe or the data, such as a loss that is not finite, is
    found again; storage that does not answer, or another rank that was lost, is not.
    """
    for error in errors:
        cause = getattr(error, "cause", error)  # Ray's RayTaskError holds the task's own
        if isinstance(cause, RaygradError) and not isinstance(cause, IncompleteError):
            return cause
    return None


def _is_node_lost(error: BaseException) -> bool:
    return bool(getattr(error, "preempted", False)) or NODE_LOST in str(error)
