"""Work on examples in chunks of what memory holds."""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from raygrad.scoring.out_of_memory import is_out_of_memory

log = logging.getLogger("raygrad")

T = TypeVar("T")


def in_chunks(work: Callable[[slice], T], count: int, size: int, what: str) -> tuple[list[T], int]:
    """Does work on consecutive chunks, smaller ones from where memory does not suffice.

    Args:
        work: Does a chunk, given its rows; it must have done nothing where it fails.
        count: Examples.
        size: Examples of a chunk, at least 1.
        what: What is done, for the warning.

    Returns:
        What each chunk gave; and the size that was enough.

    Raises:
        RuntimeError: Memory does not hold one example; or `work` failed otherwise.
    """
    found: list[T] = []
    at = 0
    while at < count:
        try:
            found.append(work(slice(at, min(at + size, count))))
        except RuntimeError as error:
            size = halved(min(size, count - at), error, what)
        else:
            at += size
            continue
        # Outside of the handler: its traceback keeps the tensors of the chunk alive.
        let_go()
    return found, size


def halved(size: int, error: RuntimeError, what: str) -> int:
    """Returns half of a size for which memory did not suffice, and says so.

    Raises:
        RuntimeError: The error, where it is another, or the size is 1.
    """
    if not is_out_of_memory(error) or size == 1:
        raise error
    log.warning("%s: chunks of %d from now on: %s", what, size // 2, str(error).splitlines()[0])
    return size // 2


def let_go() -> None:
    """Gives memory that nothing refers to back to the device."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
