"""Studies that take hours, run in short sittings on whatever machine there is.

    python -m benchmarks.kept_studies cifar10 --data DIR --work WORK --minutes 120

One command does all: it prepares the data, restores what earlier sittings came to from
`records/kept/STUDY/`, trains and scores networks, retrains on what they choose, stops by itself,
and keeps what there is, some hundred kilobytes, to be committed. A checkout on another machine
goes on from there, with the results of a study that nothing disturbed; only a training that is
under way when time is up begins anew there (in the same WORK it goes on). The exit status is 0
where all is done and 3 where more sittings are needed. `digits` is a rehearsal.

Results are the same bits on machines alike; where torch or the processor differ, trainings round
otherwise, and it is said where torch does.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.kept_files import keep, restore, scored_networks, trial_rows
from benchmarks.kept_plan import Costs, Step, chosen, pending, scored_name, summary
from benchmarks.kept_table import STUDIES, KeptStudy
from raygrad.cli.command import guarded
from raygrad.cli.last_net import EXIT_INCOMPLETE
from raygrad.cli.noise import noise_kept
from raygrad.errors import ConfigError
from raygrad.pipeline.binding import bind, bound
from raygrad.pipeline.preparing import prepare
from raygrad.pipeline.scoring import score
from raygrad.pipeline.sweeping import sweep
from raygrad.pipeline.training import train
from raygrad.pipeline.trial_grid import planned_trials
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ResultRows
from raygrad.stopping import EXIT_INTERRUPTED, EXIT_TERMINATED

KEPT = Path(__file__).parent / "records" / "kept"
"""A folder a study."""


class Sitting:
    """One sitting of a study.

    Args:
        study: The study.
        data: The folder of the data set's own files; None for a study that needs none.
        work: The folder of run folder and unpacked images.
        kept: The folder of what is kept of the study.
        minutes: How long it lasts.
    """

    def __init__(
        self, study: KeptStudy, data: Path | None, work: Path, kept: Path, minutes: float
    ) -> None:
        self._study, self._data, self._work, self._kept = study, data, work, kept
        self._run, self._minutes = work / study.name, minutes
        self._ends_s = time.monotonic() + 60 * minutes
        self._is_restored, self._before = False, set[str]()
        self._config = study.config(self._run, study.data(None, work))
        self.is_timed_out = False
        """Whether time was up while something was under way."""

    def go_on(self) -> None:
        """Does what there is time for.

        Raises:
            KeyboardInterrupt: Time was up.
            RaygradError: A stage could not finish.
        """
        with noise_kept(str(self._run)), self._timed():
            self._begin()
            did_any = False
            while (step := self._next(did_any)) is not None:
                print(f"{self.summary()}; now {step}", flush=True)
                self._do(step)
                self.keep()
                did_any = True

    def keep(self) -> None:
        """Keeps what there is, unless it was not restored yet."""
        if self._is_restored:
            bind(self._config)  # of the whole study, not of the step that was done
            layout = RunLayout(str(self._run))
            ResultRows(layout.sweep, layout.results).write()  # for the report of what there is
            keep(self._run, self._kept, self._config)

    def summary(self) -> str:
        """Returns what is done and left, in a line."""
        if not self._is_restored:
            return f"{self._study.name}: it was over before what is kept was restored"
        rows, costs = trial_rows(self._run), self._costs()
        return summary(self._study, rows, scored_networks(self._run), costs)

    def is_complete(self) -> bool:
        """Tells whether nothing is left to do."""
        return self._is_restored and not self._pending()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Asks this process to stop when time is up, as Ctrl-C does.

        By SIGTERM, which is heard as Ctrl-C is: a shell has what it starts in the background
        ignore SIGINT.
        """

        def stop() -> None:
            self.is_timed_out = True
            os.kill(os.getpid(), signal.SIGTERM)

        timer = threading.Timer(self._ends_s - time.monotonic(), stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _begin(self) -> None:
        """Prepares the data and restores what is kept.

        Raises:
            ConfigError: The data, or the recipes, are not those that what is kept came from.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        self._config = self._study.config(self._run, self._study.data(self._data, self._work))
        with bound(self._config):
            prepare(self._config)
        restore(self._run, self._kept)
        rows = trial_rows(self._run)
        self._refuse_strange({row["trial"] for row in rows})
        self._before = {row["trial"] for row in rows}
        self._is_restored = True
        others = {row["torch"] for row in rows} - {torch.__version__}
        if others:
            print(
                f"{self._study.name}: trials by torch {', '.join(sorted(others))} go on by "
                f"{torch.__version__}, which may round otherwise",
                flush=True,
            )

    def _refuse_strange(self, trials: set[str]) -> None:
        scored, planned = scored_networks(self._run), set[str]()
        for seed in self._study.seeds if trials else ():
            for part in self._study.passes:
                if scored_name(self._study, part, seed) in scored:
                    config = self._study.retraining(self._config, part, seed)
                    planned |= {trial.id for trial, _ in planned_trials(config)}
        if trials - planned:
            raise ConfigError(
                "trials that are kept must be of this study's recipe, data and subsets, got "
                f"{len(trials - planned)} of {len(trials)} that are not, such as "
                f"{min(trials - planned)}, in {self._kept}. Go on by the raygrad that kept them, "
                "or remove the folder to begin anew."
            )

    def _pending(self) -> list[Step]:
        return pending(self._study, trial_rows(self._run), scored_networks(self._run))

    def _next(self, did_any: bool) -> Step | None:
        left = (self._ends_s - time.monotonic()) / 60
        return chosen(self._pending(), self._costs(), left, did_any)

    def _costs(self) -> Costs:
        """Returns what trainings take: by this sitting's trials, else by all."""
        rows = trial_rows(self._run)
        mine = [row for row in rows if row["trial"] not in self._before]
        return Costs(self._study, mine or rows, os.cpu_count() or 1)

    def _do(self, step: Step) -> None:
        study = self._study
        if not step.methods:
            config = study.scoring(self._config, step.part, step.seed)
            with bound(config):
                train(config)
                score(config)
            return
        one = (step.networks, step.methods, (step.keep_fraction,))
        config = study.retraining(self._config, step.part, step.seed, *one)
        with bound(config):
            sweep(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sitting of a study; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", type=Path, help="the folder of the data set's own files")
    parser.add_argument("--work", type=Path, required=True, help="holds the run folder")
    parser.add_argument("--minutes", type=float, default=120.0, help="after so many it stops")
    parser.add_argument("--kept", type=Path, help="by default records/kept/STUDY")
    args = parser.parse_args(argv)
    if args.data is None and args.study != "digits":
        parser.error(f"{args.study} needs --data, the folder of its own files")
    kept = args.kept or KEPT / args.study
    sitting = Sitting(STUDIES[args.study], args.data, args.work, kept, args.minutes)
    status = guarded(sitting.go_on)
    sitting.keep()
    print(sitting.summary(), flush=True)
    if status == 0 or (sitting.is_timed_out and status in (EXIT_INTERRUPTED, EXIT_TERMINATED)):
        return 0 if sitting.is_complete() else EXIT_INCOMPLETE
    return status


if __name__ == "__main__":
    sys.exit(main())
