"""The command `raygrad`, and the way the experiments of jobs/ are run.

`command` parses, runs and turns errors into a line and an exit status; `subcommands` holds one
class a stage, whose fields are its flags; `whole_study` runs a study, or says what it would be, and
prints. It stands on top: nothing imports it, and it may import every floor.

Read first: `command.py`. It is imported when it is run: that takes a second or so, in which Ctrl-C
is a stop like any other.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from raygrad.stopping import EXIT_INTERRUPTED, STOPPED

if TYPE_CHECKING:
    from raygrad.config import StudyConfig

__all__ = ["job", "main"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command `raygrad`, as `command.main` does; returns the exit status."""
    run = _loaded()
    return EXIT_INTERRUPTED if run is None else int(run.main(args))


def job(
    default: "StudyConfig", smoke: "StudyConfig | None" = None, args: Sequence[str] | None = None
) -> int:
    """Runs an experiment of jobs/, as `command.job` does; returns the exit status."""
    run = _loaded()
    return EXIT_INTERRUPTED if run is None else int(run.job(default, smoke, args))


def _loaded() -> ModuleType | None:
    """Imports the command; None where Ctrl-C came meanwhile, which is said as it says it."""
    try:
        from raygrad.cli import command
    except KeyboardInterrupt:
        print(f"raygrad: {STOPPED}", file=sys.stderr)
        return None
    return command
