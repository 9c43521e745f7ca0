"""The command `raygrad`: one subcommand a stage, and the way jobs are run.

Exit status: 0 complete, 1 error, 2 wrong usage, 3 incomplete, 130 stopped by Ctrl-C, 143 by
SIGTERM; after the last three the same command goes on.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Annotated, Any, Union

import tyro

from raygrad import __version__, pipeline, stopping
from raygrad.api.carried import SECTIONS, lent, settled
from raygrad.api.unused import refuse_unused
from raygrad.cli import last_net
from raygrad.cli.brief_help import HELP, all_commands, parsed
from raygrad.cli.choosing_subcommands import Influence, Select
from raygrad.cli.data_subcommands import Scores
from raygrad.cli.last_net import EXIT_ERROR, EXIT_INCOMPLETE, EXIT_USAGE
from raygrad.cli.noise import noise_kept
from raygrad.cli.subcommands import (
    COMMANDS,
    Command,
    Job,
    PlanSweep,
    Report,
    Score,
    Status,
    Sweep,
    Train,
)
from raygrad.cli.terminal import shown_lines
from raygrad.cli.usage import one_line
from raygrad.config import StudyConfig
from raygrad.engine.session import expect_ray, session
from raygrad.errors import ConfigError, IncompleteError, RaygradError
from raygrad.stopping import EXIT_INTERRUPTED, EXIT_TERMINATED, STOPPED
from raygrad.storage import patience
from raygrad.training.recipes import named_recipe

RUN = ("--run", "--storage")
RUN_AS_WORD = (Influence, Select, Scores, Status, Report)
"""Commands whose run folder is named without a flag."""
RUN_AFTER_FLAG = (Train, Score, Sweep, PlanSweep)
"""Commands whose run folder is named by a flag, and which take no word without one."""
STARTS_RAY = (Train, Score, Sweep, Job)
"""Commands that need workers of Ray, unless what they do is there."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command `raygrad`; returns the exit status.

    A run folder that is named among the arguments gives the defaults of the flags, so that a
    stage on its own works as it was configured for the whole study; a recipe gives training's.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given[:1] == ["--version"]:
        print(f"raygrad {__version__}")
        return 0
    return guarded(lambda: _execute(_parse(given)))


def job(
    default: StudyConfig, smoke: StudyConfig | None = None, args: Sequence[str] | None = None
) -> int:
    """Runs an experiment of jobs/: its configuration, changed by flags; returns the exit status.

    Args:
        default: The experiment; every field is a flag.
        smoke: The same experiment made small, which `--smoke` takes instead. `--recipe` gives
            either the training of another network.
        args: The command line, by default the process's own.
    """
    given = list(sys.argv[1:] if args is None else args)
    chosen = smoke if smoke is not None and "--smoke" in given else default

    def execute() -> None:
        name = _value(given, "--recipe")
        train = chosen.train if name is None else named_recipe(name)
        if smoke is None and "--smoke" in given:
            raise ConfigError("--smoke must be of a job that has a small form, got none here.")
        before = replace(chosen, train=train)
        command = _flags(Job, default=Job(**vars(before)), args=given, use_underscores=False)
        refuse_unused({name: getattr(command, name) for name in SECTIONS}, before)
        _execute(command)

    return guarded(execute)


def guarded(work: Callable[[], None]) -> int:
    """Does the work within a Ray session; turns errors into one line and an exit status."""
    received: list[signal.Signals] = []
    try:
        with shown_lines(), stopping.heard() as received, patience.of_a_command(), session():
            work()
        sys.stdout.flush()
    except ConfigError as error:
        return _fail(error, EXIT_USAGE)
    except IncompleteError as error:
        return _fail(error, EXIT_INCOMPLETE)
    except RaygradError as error:
        return _fail(error, EXIT_ERROR)
    except BrokenPipeError:
        # Who reads, such as `head`, has what it wanted; what is left must not be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        status = EXIT_TERMINATED if signal.SIGTERM in received else EXIT_INTERRUPTED
        return _fail(STOPPED, status)
    except Exception as error:  # the last net: what is not from outside goes on as it came
        line_and_status = last_net.caught(error)
        if line_and_status is None:
            raise
        return _fail(*line_and_status)
    return 0


def _parse(args: list[str]) -> Command:
    if args[:1] and args[0] in COMMANDS:
        return _parse_one(args[0], COMMANDS[args[0]], args[1:])
    if args and args[0] in HELP:
        print("\n".join(all_commands(COMMANDS, __doc__ or "")))
        raise SystemExit(0)
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())
    return _flags(Union[kinds], prog="raygrad", description=__doc__, args=args)  # noqa: UP007


def _parse_one(name: str, kind: type[Command], args: list[str]) -> Command:
    args = _with_run(kind, args)
    stored = _stored_defaults(args, kind)
    default = _default(kind, stored)
    command = _flags(kind, prog=f"raygrad {name}", default=default, args=args)
    if default is tyro.MISSING_NONPROP:
        return command
    names = SECTIONS & {f.name for f in fields(command)}
    sections = ((n, getattr(command, n), getattr(default, n)) for n in sorted(names))
    found = {n: settled(n, now, was, args) for n, now, was in sections}
    refuse_unused(found, stored or StudyConfig("-"))
    return replace(command, **found)


def _with_run(kind: type[Command], args: list[str]) -> list[str]:
    """Returns arguments whose run folder is named as the command asks for it: both ways are one.

    `raygrad select --run R` is `raygrad select R`, and `raygrad score R` is `raygrad score --run R`
    where no other word stands without a flag.
    """
    if kind in RUN_AS_WORD:
        value = _value(args, *RUN)
        if value is None:
            return args
        at = next(n for n, arg in enumerate(args) if arg.partition("=")[0] in RUN)
        return [value, *args[:at], *args[at + (1 if "=" in args[at] else 2) :]]
    if args[:1] and not args[0].startswith("-") and _value(args, *RUN) is None:
        return ["--run", *args] if kind in RUN_AFTER_FLAG else args
    return args


def _execute(command: Command) -> None:
    """Runs a command; what other libraries say of it goes to its run folder."""
    with noise_kept(getattr(command, "run", None)), session():
        if isinstance(command, STARTS_RAY) and not getattr(command, "plan", False):
            expect_ray()
        command.execute()


def _flags(kind: Any, **options: Any) -> Any:
    """Returns what the command line says, as `parsed` does.

    Raises:
        ConfigError: The line cannot be parsed, or a section refuses its values.
    """
    said, asks_help = io.StringIO(), not HELP.isdisjoint(options["args"])
    # The parser draws boxes as the encoding of the standard output allows.
    drawn = sys.stdout if asks_help else io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(drawn):
            return parsed(kind, **options)
    except SystemExit as ended:
        cause: BaseException | None = ended
        while cause is not None and not isinstance(cause, ConfigError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        if not ended.code:
            raise  # help, which is printed
        prog = options.get("prog") or os.path.basename(sys.argv[0])
        raise ConfigError(one_line(said.getvalue(), prog)) from None


def _default(kind: type[Command], stored: StudyConfig | None) -> Any:
    """Returns the defaults of a subcommand's flags: the run's own sections, where there is one."""
    own = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # commands are dataclasses
    if not SECTIONS & own.keys():
        return tyro.MISSING_NONPROP
    lender = lent(stored or StudyConfig("-"))
    found = {name: getattr(lender, name) for name in own.keys() & vars(lender).keys() - {"run"}}
    if "run" in own:
        is_needed = own["run"].default is MISSING
        found["run"] = stored.run if stored else tyro.MISSING if is_needed else own["run"].default
    return kind(**found)


def _stored_defaults(args: list[str], kind: type[Command]) -> StudyConfig | None:
    """Returns the configuration that the arguments name: the run folder's, with their recipe."""
    run, name = _value(args, *RUN), _value(args, "--recipe")
    if kind in RUN_AS_WORD and args[:1] and not args[0].startswith("-"):
        run = args[0]
    stored = None if run is None else pipeline.stored_config(run)
    if name is None or run is None:
        return stored
    return replace(stored or StudyConfig(run), train=named_recipe(name))


def _value(args: list[str], *flags: str) -> str | None:
    """Returns what stands behind a flag, by any of its names; None where it is not given.

    Of a flag that is given twice it is the last, which is also what the parser takes.
    """
    found = []
    for at, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in flags and (equals or at + 1 < len(args)):
            found.append(value if equals else args[at + 1])
    return found[-1] if found else None


def _fail(error: object, status: int) -> int:
    print(f"raygrad: {error}", file=sys.stderr)
    return status
