"""The last net of the command: what the system or Ray says becomes one line and a log file.

Only what comes from outside is caught: files, disks, connections and Ray's own processes. An error
of any other kind is a defect of raygrad, and its traceback is what is needed to mend it.
"""

import errno
import os
import tempfile
import time
import traceback

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_THE_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""What the user named wrongly; all else may pass, or needs the machine mended."""

EXIT_ERROR, EXIT_USAGE, EXIT_INCOMPLETE = 1, 2, 3


def caught(error: Exception) -> tuple[str, int] | None:
    """Returns the line and the exit status for an error from outside, None for any other.

    The traceback goes to a file in the temporary folder, which the line names.
    """
    cause = getattr(error, "cause", None)  # Ray's wrapper of what a worker raised
    inner = cause if isinstance(cause, Exception) else error
    if isinstance(inner, OSError):
        return _of_system(inner, _logged(error))
    if type(inner).__module__.split(".")[0] == "ray":
        line = (str(inner).strip().splitlines() or [""])[0].rstrip(".")
        text = f"Ray must keep running, got {type(inner).__name__}: {line}. Run again to go on."
        return f"{text} Details: {_logged(error)}", EXIT_INCOMPLETE
    return None


def _of_system(error: OSError, log: str) -> tuple[str, int]:
    place = error.filename or str(error) or type(error).__name__
    status = EXIT_USAGE if isinstance(error, _OF_THE_PATH) else EXIT_ERROR
    if isinstance(error, FileNotFoundError):
        text = f"a file or folder must exist, got none at {place}. Check the path."
    elif isinstance(error, PermissionError):
        text = f"a file or folder must be open to this user, got no right to {place}. Grant it."
    elif isinstance(error, NotADirectoryError | IsADirectoryError):
        text = f"a path must be what is asked for, got {_said(error)} at {place}. Check the path."
    elif error.errno in _FULL:
        text = f"there must be room to write, got {_said(error)} at {place}. Make room, run again."
    else:
        text = f"the system must do what is asked, got {_said(error)}. Mend that and run again."
    return f"{text} Details: {log}", status


def _said(error: OSError) -> str:
    text = error.strerror or str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _logged(error: Exception) -> str:
    """Writes the traceback to a file of its own; returns its path, or why there is none."""
    name = f"raygrad-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    path = os.path.join(tempfile.gettempdir(), name)
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.writelines(traceback.format_exception(error))
    except OSError as problem:
        return f"none, as the log could not be written ({problem})"
    return path
