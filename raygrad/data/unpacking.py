"""Compressed tars, unpacked once: an example is a range of bytes, which no compressed file has."""

import lzma
import shutil

import pyarrow as pa

from raygrad.storage import files

_BLOCK_BYTES = 2**16
"""Read at a time: of a file that is cut so much may be lost before the cut."""


def unpack(url: str, compression: str, place: str) -> None:
    """Writes what a compressed file holds, whole or not at all.

    A file that is cut, or damaged somewhere, gives what comes before: the tar is cut there too,
    which its scan says.

    Args:
        url: The compressed file.
        compression: ``gzip``, ``bz2``, ``zstd``, ``lz4`` or ``xz``.
        place: The file that is written.
    """
    with (
        files.open_input(url) as packed,
        files.open_output(place) as out,
        lzma.open(packed) if compression == "xz" else _decoder(packed, compression) as stream,
    ):
        try:
            shutil.copyfileobj(stream, out, _BLOCK_BYTES)
        except (EOFError, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, not of the data


def _decoder(packed: pa.NativeFile, compression: str) -> pa.NativeFile:
    return pa.CompressedInputStream(packed, compression)
