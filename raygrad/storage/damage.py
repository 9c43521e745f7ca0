"""Damaged files of a run folder: which one it is, and what to do, in place of a parser's words."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from raygrad.errors import DataError

MADE_AGAIN = "do the stage that wrote it again"


def damaged(url: str, kind: str, why: object, remedy: str = MADE_AGAIN) -> DataError:
    """Returns the error for a file that is cut or overwritten.

    Args:
        url: The file.
        kind: What it must be.
        why: What the parser said.
        remedy: What to do once the file is removed.
    """
    said = (str(why).strip().splitlines() or [type(why).__name__])[0].rstrip(".")
    return DataError(
        f"a file of a run folder must be whole {kind}, got {said}, in {url}. Restore it, or remove "
        f"it and {remedy}."
    )


@contextlib.contextmanager
def whole_parquet(url: str) -> Iterator[None]:
    """Names the file where what is read in the context is no Parquet, or is cut.

    Raises:
        DataError: It is damaged.
    """
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        # Damage behind the footer is an OSError without a number; the system's have theirs.
        is_system = isinstance(error, OSError) and (type(error) is not OSError or error.errno)
        if is_system:
            raise
        raise damaged(url, "Parquet", error) from error
