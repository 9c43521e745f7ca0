"""One rule for hidden files and folders, which systems and tools leave between a user's own."""

import re

_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_FILES = ("Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r")
_HIDDEN = re.compile(
    r"(?:^|/)(?:\.(?!\.?(?:/|$))[^/]*"
    rf"|(?:{'|'.join(map(re.escape, _FOLDERS))})(?=/|$)|(?:{'|'.join(map(re.escape, _FILES))})$)"
)
find_hidden = _HIDDEN.search
"""Finds the hidden part of a path, None where it has none: see `is_hidden`."""


def is_hidden(path: str) -> bool:
    """Tells whether a file, or a folder that it is in, is hidden.

    Hidden is what begins with a dot (``._x.jpg``, ``.ipynb_checkpoints``), the folders that macOS,
    Windows and network storage add (``__MACOSX``, ``@eaDir``), and their files (``Thumbs.db``).
    ``.`` and ``..`` are no hidden folders.

    Args:
        path: A path below the folder or tar that was named, with ``/``.
    """
    return find_hidden(path) is not None
