"""The command `raygrad`, and the way the experiments of jobs/ are run.

`command` parses, runs and turns errors into a line and an exit status; `subcommands` holds one
class a stage, whose fields are its flags; `whole_study` runs a study, or says what it would be, and
prints. It stands on top: nothing imports it, and it may import every floor.

Read first: `command.py`.
"""

from raygrad.cli.command import job, main

__all__ = ["job", "main"]
