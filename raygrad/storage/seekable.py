"""What every seekable stream over ranges of bytes does alike, whatever fetches the bytes."""

import abc
import io
from typing import Any


class SeekableReader(io.RawIOBase, abc.ABC):
    """A file of known size as a seekable stream for reading; `read` is what a kind of it adds.

    Args:
        size: Bytes of the file.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._position = size, 0

    def size(self) -> int:
        """Returns the file's size in bytes."""
        return self._size

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position; nothing is requested before the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a position must be at least 0, got {base + offset}.")
        self._position = base + offset
        return self._position

    def readinto(self, target: Any) -> int:
        """Fills `target` as far as the file goes and returns the number of bytes."""
        view = memoryview(target).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Returns the rest of the file."""
        return self.read(-1)

    @abc.abstractmethod
    def read(self, size: int | None = -1) -> bytes:
        """Returns `size` bytes, fewer only at the file's end."""

    def _wanted(self, size: int | None) -> int:
        """Returns how many bytes a read of `size` gives: no more than are left."""
        rest = max(0, self._size - self._position)
        return rest if size is None or size < 0 else min(size, rest)
