"""The errors that raygrad raises on purpose. All of them survive pickling between processes."""

import difflib
from collections.abc import Iterable, Mapping, Sequence


class RaygradError(Exception):
    """Base of every error that raygrad raises on purpose; its text is one line for the user."""


class ConfigError(RaygradError, ValueError):
    """The user's input cannot be used; nothing was started and nothing was lost."""


class DataError(RaygradError, ValueError):
    """Something in the data (a shard, an image, a label, a score) breaks a stated rule."""


class TooManyRejectsError(DataError):
    """More examples cannot be used than is accepted.

    Args:
        text: The line for the user.
        rejects: Shard, key and reason of each, for the table that the user looks them up in.
    """

    def __init__(self, text: str, rejects: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(text, rejects)
        self.rejects = rejects

    def __str__(self) -> str:
        return str(self.args[0])


class IncompleteError(RaygradError):
    """Some work was given up after its retries; what is finished is kept. Run again to go on."""


class StorageAwayError(IncompleteError):
    """Storage did not answer for as long as it is waited for; it may again."""


class StorageRefusedError(ConfigError):
    """Storage refuses the credentials or the right to do something; it may take them again."""


class ResourceError(RaygradError, RuntimeError):
    """The machine or cluster has less than the work needs."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns an error text for a name that is not known, with the nearest right one.

    Args:
        kind: What the name stands for, such as ``"method"``.
        name: The name that came.
        known: The names that are right.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{kind} must be one of {', '.join(names)}, got {name!r}.{hint}"
