"""What a kept study does next, and how long it takes by what its trials took so far.

Every replicate does a share before any does the next, all the data first and then from the
smallest on: a comparison needs all replicates, so what is there compares all methods at the shares
that were reached. A step that does not fit into what is left of the sitting gives way to one that
does, as on another machine what is under way would be lost.
"""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.kept_table import KeptStudy, Pass

Row = Mapping[str, Any]
Name = tuple[int, str | None, str, str, float]
"""A trial: score seed, scored network (None of random subsets), network, method, keep_fraction."""
MARGIN = 1.1
"""What trials take, times this, must fit into what is left."""
SCORED = 1.25
"""A scoring network takes this many times a training: it is trained, and its table is made."""


@dataclass(frozen=True)
class Step:
    """What is done at a time: a network that is trained and scored, or trials at one share."""

    part: Pass
    seed: int
    """Of the scoring network."""
    networks: tuple[str, ...]
    """Those that are trained, beside each other as far as there are cores."""
    keep_fraction: float = 1.0
    methods: tuple[str, ...] = ()
    """Of the subsets that are retrained on; none where a network is trained and scored."""

    def __str__(self) -> str:
        what = ", ".join(self.methods) if self.methods else "trained and scored"
        share = f" on {self.keep_fraction:.2%}" if self.methods else ""
        by = f"replicate {self.seed}, {self.part.scored} scores"
        return f"{', '.join(self.networks)}{share}, {by}: {what}"


def scored_name(study: KeptStudy, part: Pass, seed: int) -> str:
    """Returns the name of a scoring network's folders."""
    return part.scored if seed == study.recipe.seed else f"{part.scored}-seed{seed}"


def trial_names(study: KeptStudy, part: Pass, seed: int) -> list[Name]:
    """Returns every trial of a pass and replicate; random ones are the first pass's alone."""
    is_first = part == study.passes[0]
    names: list[Name] = []
    for share in sorted(study.keep_fractions, reverse=True):
        for network in part.retrained:
            for method in study.methods if share < 1 else ("random",):
                if method != "random":
                    names.append((seed, part.scored, network, method, share))
                elif is_first:
                    names.append((seed, None, network, method, share))
    return names


def name_of(row: Row) -> Name:
    """Returns which trial a row is of."""
    scored = None if row["method"] == "random" else row["score_network"]
    return row["score_seed"], scored, row["network"], row["method"], row["keep_fraction"]


def pending(study: KeptStudy, rows: Iterable[Row], scored: Collection[str]) -> list[Step]:
    """Returns what can be done next, in order; nothing where all is done.

    Scoring networks come first, then shares in order, each by all replicates.

    Args:
        study: The study.
        rows: The trials that are finished.
        scored: The scoring networks whose tables are complete, by the names of their folders.
    """
    done = set(map(name_of, rows))
    networks, trials = list[Step](), list[Step]()
    for seed in study.seeds:
        for part in study.passes:
            if scored_name(study, part, seed) not in scored:
                networks.append(Step(part, seed, (part.scored,)))
                continue
            todo = [name for name in trial_names(study, part, seed) if name not in done]
            trials += _grouped(part, seed, todo)
    trials.sort(key=lambda step: (step.keep_fraction < 1, step.keep_fraction, step.seed))
    return networks + trials


def _grouped(part: Pass, seed: int, names: Iterable[Name]) -> list[Step]:
    """Returns steps of trials: of a share, the networks that lack the same methods together.

    One training on all the data leaves cores idle, and every step has a start and an end.
    """
    methods: dict[tuple[float, str], list[str]] = {}
    for _, _, network, method, share in names:
        methods.setdefault((share, network), []).append(method)
    steps: dict[tuple[float, tuple[str, ...]], list[str]] = {}
    for (share, network), found in methods.items():
        steps.setdefault((share, tuple(found)), []).append(network)
    return [Step(part, seed, tuple(nets), *of) for of, nets in steps.items()]


class Costs:
    """What a training takes, from the study's guess or from trials.

    Args:
        study: The study.
        rows: The finished trials that tell it: those of this machine, where there are any.
        num_cores: Of the machine.
    """

    def __init__(self, study: KeptStudy, rows: Iterable[Row], num_cores: int) -> None:
        self._study, self.num_at_once = study, max(1, num_cores // study.threads)
        times: dict[tuple[str, float], list[float]] = {}
        for row in rows:
            of = row["network"], row["keep_fraction"]
            times.setdefault(of, []).append(row["train_time_s"] / 60)
        self._minutes = {of: statistics.median(found) for of, found in times.items()}

    def minutes(self, network: str, keep_fraction: float) -> float:
        """Returns what one training takes: as at this share, or by the shares next to it.

        Between two shares it is on the line of both, for a start costs what it costs; beyond them
        all in proportion to the nearest.
        """
        known = {share: took for (of, share), took in self._minutes.items() if of == network}
        if not known:
            return self._study.whole_minutes[network] * keep_fraction
        shares = sorted(known)
        if shares[0] <= keep_fraction <= shares[-1]:
            return float(np.interp(keep_fraction, shares, [known[share] for share in shares]))
        nearest = min(shares, key=lambda share: abs(share - keep_fraction))
        return known[nearest] * keep_fraction / nearest

    def of_step(self, step: Step) -> float:
        """Returns the minutes of a step: of its trainings on cores that are never idle, or more."""
        each = [self.minutes(network, step.keep_fraction) for network in step.networks]
        if not step.methods:
            return sum(each) * SCORED
        rounds = -(-len(step.methods) // self.num_at_once)
        return max(max(each) * rounds, sum(each) * len(step.methods) / self.num_at_once)

    def fitting(self, step: Step, left_minutes: float) -> Step | None:
        """Returns a step, with as much of it as fits; None where nothing does.

        All its networks with as many of its methods as fit go before one of the networks.
        """
        for networks in dict.fromkeys([step.networks, *((one,) for one in step.networks)]):
            for count in range(max(1, len(step.methods)), 0, -1):
                fewer = replace(step, networks=networks, methods=step.methods[:count])
                if MARGIN * self.of_step(fewer) <= left_minutes:
                    return fewer
        return None


def chosen(steps: Sequence[Step], costs: Costs, left_minutes: float, did_any: bool) -> Step | None:
    """Returns the first step that fits; the first of all where a sitting would do nothing."""
    for step in steps:
        found = costs.fitting(step, left_minutes)
        if found is not None:
            return found
    if did_any or not steps:
        return None
    return replace(steps[0], networks=steps[0].networks[:1], methods=steps[0].methods[:1])


def summary(study: KeptStudy, rows: Sequence[Row], scored: Collection[str], costs: Costs) -> str:
    """Returns in a line what is done, what is left, and how long that takes."""
    parts = [(part, seed) for seed in study.seeds for part in study.passes]
    every = [name for part, seed in parts for name in trial_names(study, part, seed)]
    networks = {scored_name(study, *one): one[0].scored for one in parts}
    todo = set(every) - set(map(name_of, rows))
    trials = sum(costs.minutes(name[2], name[4]) for name in todo) / costs.num_at_once
    scoring = sum(
        SCORED * costs.minutes(networks[name], 1.0) for name in networks if name not in scored
    )
    seen = f"what {len(rows)} trials took" if rows else "a guess, no trial is finished"
    return (
        f"{study.name}: {len(every) - len(todo)} of {len(every)} trials and "
        f"{len(networks.keys() & set(scored))} of {len(networks)} scoring networks are done; "
        f"about {trials + scoring:.0f} minutes are left, by {seen}"
    )
