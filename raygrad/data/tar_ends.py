"""Whether a tar ends as a tar does, or a hole of zeros in it was taken for its end."""

import tarfile
from typing import Any

_BLOCK = tarfile.BLOCKSIZE
_MOST_RECORD = 2**20
"""The longest record that tars are padded to: GNU tar's ``-b 2048``, usual on parallel disks."""


def end_problem(stream: Any, end: int, stop: int, start: int = 0) -> str | None:
    """Returns why a tar that was read up to a byte does not end there, None where it does.

    A reader takes two blocks of zeros for the end; so does a hole in a file that was not written
    whole. Behind the end there are zeros alone, and no more than fill a record.

    Args:
        stream: The file; its position changes.
        end: Where the last member, with its padding, ends.
        stop: Where the file ends, or the part of it that is the tar.
        start: Where the tar begins.
    """
    stream.seek(end)
    tail = bytes(stream.read(min(_BLOCK, max(0, stop - end))))
    if len(tail) < _BLOCK:
        return "the end of the archive is missing, so the tar is cut"
    if any(tail):
        return f"there is no tar header at byte {end}"
    left = stop - end
    rest = bytes(stream.read(min(left, _MOST_RECORD + 4 * _BLOCK) - _BLOCK))
    if any(rest):
        return f"there is data after the end of the archive at byte {end}"
    if not _is_padding(left, stop - start):
        return f"there are {left} zero bytes from byte {end} on, more than end a tar"
    return None


def _is_padding(zeros: int, num_bytes: int) -> bool:
    """Tells whether zeros at the end of a tar can fill its last record."""
    end = 2 * _BLOCK
    if zeros <= tarfile.RECORDSIZE + end:
        return True
    records = (_BLOCK << power for power in range((_MOST_RECORD // _BLOCK).bit_length()))
    return any(num_bytes % record == 0 and zeros <= record + end for record in records)
