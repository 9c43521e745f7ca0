"""The paper's two attributes of a data set, simplicity and redundancy, from a sweep's results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raygrad.errors import DataError

# Two-sided 97.5% points of Student's t for 1 to 30 degrees of freedom; above, the normal's.
_T = (
    "12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131 "
    "2.120 2.110 2.101 2.093 2.086 2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042"
)
_T_975 = tuple(float(value) for value in _T.split())


MAX_LOSS = 0.005
"""The loss of accuracy that redundancy accepts: half a point of a hundred."""
SIMPLICITY_FROM = 0.01
"""The share of the data from which on simplicity looks at random's curve."""

Curve = Mapping[float, float]
"""Accuracies of one replicate by share kept; 1.0, the full data, is among them."""
MOST_KEPT = {"non_extreme_max_gradient": 0.95, "ccs": 0.9, "band": 0.5}
"""The largest share that a method keeps, with the options that it has by default."""

_Replicate = tuple[int | None, int]
"""The seed of the scoring network, and that of the draw and retraining."""
_Entry = tuple[str, float, _Replicate, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates with its 95% confidence interval (Student's t)."""

    mean: float
    low: float
    high: float
    num_seeds: int
    """Seeds, or scoring networks where there are several; with one there is no interval: low and
    high are NaN."""

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return self.num_seeds > 1


@dataclass(frozen=True)
class Bracket:
    """Where a method's redundancy lies: no number is made up between two measured shares.

    The share that can be left out is at least `low`, since the smallest share kept that passed
    leaves that out, and less than `high`, since the largest share that failed leaves that out.
    """

    low: float
    """1 less `passed_at`; 0 where no measured share passed, and all the data is needed."""
    high: float
    """1 less `failed_at`; 1 where every measured share passed: then it is at least `low`."""
    passed_at: float | None
    """The smallest measured share from which on every mean is within the accepted loss."""
    failed_at: float | None
    """The largest measured share whose mean is not."""
    num_seeds: int
    """The fewest seeds that the means at its two ends are over, or scoring networks where there are
    several. A mean of one seed fails or passes by its chance."""
    most_kept: float = 1.0
    """The largest share that the method can keep at all: below 1 where it leaves out extremes."""

    @property
    def at_least(self) -> bool:
        """Whether every measured share passed, so that nothing bounds it from above."""
        return self.failed_at is None


@dataclass(frozen=True)
class Gain:
    """A bracket of the difference of two redundancies, in [-1, 1]."""

    low: float
    high: float
    shown: bool
    """Whether one method passed at a share at which the other failed."""


@dataclass(frozen=True)
class Attributes:
    """What a sweep says about its data set."""

    simplicity: Estimate
    simplicity_from: float
    """The smallest share kept that it covers."""
    redundancy: dict[str, Bracket]
    """Of each method: where the share lies that can be left out within the accuracy loss."""
    best_method: str
    """The method that passed at the smallest share; of equal ones random, then the first."""
    gain: Gain
    """The best method's redundancy less random's."""


def attributes(
    results: Mapping[str, Sequence[Any]], *, max_loss: float = MAX_LOSS
) -> dict[tuple[str, str], Attributes]:
    r"""Returns simplicity and redundancy for each network and protocol of a sweep.

    The paper names the two attributes and reads them off its figures; as numbers they are here:

    - simplicity: the area under random's accuracy over the logarithm of the share kept, relative
      to full accuracy and to the axis: 1 if any subset teaches as much as the whole. It begins
      at 1% of the data, or where the measured curve does if that is later.

      .. math:: \frac{1}{\ln(1/f_0)} \int_{f_0}^1 \frac{a(f)}{a(1)} \, \mathrm{d} \ln f

    - redundancy: the largest share :math:`1 - f` that a method may leave out with a mean accuracy
      of at least :math:`a(1) - \text{max\_loss}`, at every measured fraction from there up. Only
      measured fractions say something: it is a `Bracket` between the last that failed and the
      first that passed, and at least that where all passed.

    Simplicity is computed replicate by replicate and averaged, with an interval over replicates:
    over means per scoring network where there are several. The full accuracy of a replicate is
    that of keep_fraction 1, whatever method it is filed under. Redundancy goes by means over
    replicates; which shares the intervals settle is for the report's findings to say.

    Args:
        results: Columns network, method, keep_fraction, seed, protocol, test_accuracy, and
            score_seed where there are several scoring networks.
        max_loss: The accepted loss of accuracy, as a share (0.005 is half a point of a hundred).

    Raises:
        DataError: A column is missing; a network has no result for random below keep_fraction 1 or
            none for keep_fraction 1 with the same seed; a method has two accuracies at one share
            and seed, as rows by several score columns have.
    """
    names = ("network", "method", "keep_fraction", "seed", "protocol", "test_accuracy")
    absent = [name for name in names if name not in results]
    if absent:
        raise DataError(f"results must have the column {absent[0]}, got {', '.join(results)}.")
    cells: dict[tuple[str, str], list[_Entry]] = {}
    given = results.get("score_seed")
    score_seeds = [None] * len(results["seed"]) if given is None else given
    rows = zip(*(results[name] for name in names), score_seeds, strict=True)
    for network, method, fraction, seed, protocol, accuracy, score_seed in rows:
        if accuracy is None or not np.isfinite(accuracy):
            continue  # A failed trial; the estimate's num_seeds tells.
        # Where some rows have none, as subsets made elsewhere, pandas gives NaN for it.
        unknown = score_seed is None or np.isnan(score_seed)
        replicate = None if unknown else int(score_seed), int(seed)
        entry = (str(method), float(fraction), replicate, float(accuracy))
        cells.setdefault((str(network), str(protocol)), []).append(entry)
    for (network, _), entries in cells.items():
        if not any(fraction == 1.0 for _, fraction, _, _ in entries):
            # On the full data the protocols train alike: one of them stands for all.
            others = [row for (name, _), rows in cells.items() if name == network for row in rows]
            entries += [row for row in others if row[1] == 1.0]
    return {key: _of_network(key, entries, max_loss) for key, entries in cells.items()}


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean of values, one a replicate, with its 95% confidence interval."""
    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return Estimate(float(found.mean()), float("nan"), float("nan"), len(found))
    freedom = len(found) - 1
    t = _T_975[freedom - 1] if freedom <= len(_T_975) else 1.96
    half = t * float(found.std(ddof=1)) / float(np.sqrt(len(found)))
    mean = float(found.mean())
    return Estimate(mean, mean - half, mean + half, len(found))


def _of_network(key: tuple[str, str], entries: list[_Entry], max_loss: float) -> Attributes:
    full = {replicate: accuracy for _, fraction, replicate, accuracy in entries if fraction == 1.0}
    curves: dict[str, dict[_Replicate, dict[float, float]]] = {}
    for method, fraction, replicate, accuracy in entries:
        if fraction < 1.0 and replicate in full:
            curve = curves.setdefault(method, {}).setdefault(replicate, {1.0: full[replicate]})
            if curve.setdefault(fraction, accuracy) != accuracy:
                raise DataError(
                    f"a method must have one accuracy at each share and seed, got two for {method} "
                    f"at {fraction:g}, seed {replicate[1]}, of {' '.join(key)}. Give the rows of "
                    "one score_network, score_column and score_run, or name their methods apart."
                )
    if "random" not in curves:
        raise DataError(
            "simplicity needs random subsets and keep_fraction 1 of the same seed, got neither or "
            f"one for {' '.join(key)}. Sweep with both."
        )
    groups = {replicate: replicate[0] for of in curves.values() for replicate in of}
    return curve_attributes(curves, max_loss=max_loss, groups=groups)


def curve_attributes(
    curves: Mapping[str, Mapping[Any, Curve]],
    *,
    max_loss: float = MAX_LOSS,
    groups: Mapping[Any, Any] | None = None,
) -> Attributes:
    """Returns what `attributes` says, from curves.

    Args:
        curves: By method, random among them, then by replicate.
        max_loss: The accepted loss of accuracy.
        groups: The scoring network of each replicate, where there are several.
    """
    start = max(SIMPLICITY_FROM, *(min(curve) for curve in curves["random"].values()))
    areas = {replicate: _simplicity(curve, start) for replicate, curve in curves["random"].items()}
    redundancy = {
        method: _bracket(method, of, max_loss, groups or {})
        for method, of in sorted(curves.items())
    }
    best = max(redundancy, key=lambda method: (redundancy[method].low, method == "random"))
    return Attributes(
        estimate(means_by_group(areas, groups or {})),
        start,
        redundancy,
        best,
        _gain(redundancy[best], redundancy["random"]) if best != "random" else Gain(0, 0, False),
    )


def means_by_group(values: Mapping[Any, float], groups: Mapping[Any, Any]) -> list[float]:
    """Returns what an interval is over: means per scoring network, or the values of one network.

    Replicates of one scoring network share its scores: they scatter less than two networks do.
    With the networks' means as the sample, Student's interval with one degree of freedom less than
    there are networks is exact for equal numbers of replicates, whatever the two variances are; a
    mixed model would have to estimate them from as few networks and is only asymptotically so.

    Args:
        values: By replicate.
        groups: The scoring network of each replicate; of those not named it is one.
    """
    by_group: dict[Any, list[float]] = {}
    for replicate, value in values.items():
        by_group.setdefault(groups.get(replicate), []).append(value)
    if len(by_group) < 2:
        return list(values.values())
    return [math.fsum(of) / len(of) for of in by_group.values()]


def _gain(best: Bracket, base: Bracket) -> Gain:
    shown = (
        best.passed_at is not None
        and base.failed_at is not None
        and best.passed_at <= base.failed_at
    )
    return Gain(max(best.low - base.high, -1.0), min(best.high - base.low, 1.0), shown)


def _bracket(
    method: str, curves: Mapping[Any, Curve], max_loss: float, groups: Mapping[Any, Any]
) -> Bracket:
    gaps: dict[float, dict[Any, float]] = {}
    for replicate, curve in curves.items():
        for share, accuracy in curve.items():
            if share < 1.0:
                gaps.setdefault(share, {})[replicate] = curve[1.0] - accuracy
    # Shares are compared exactly at the margin: 0.99 less 0.985 is 0.005 to a reader.
    lost = {
        share: math.fsum(of.values()) / len(of) - max_loss > 1e-12 for share, of in gaps.items()
    }
    failed = max((share for share, fails in lost.items() if fails), default=None)
    passed = min((share for share in gaps if failed is None or share > failed), default=None)
    most = max(MOST_KEPT.get(method.split(" ")[0], 1.0), *gaps)
    # Without a share between or beyond them the ends would be the same.
    ends = [gaps[share] for share in (passed, failed) if share is not None]
    return Bracket(
        0.0 if passed is None else 1 - passed,
        1.0 if failed is None else 1 - failed,
        passed,
        failed,
        min(len(means_by_group(of, groups)) for of in ends),
        most,
    )


def _simplicity(curve: Curve, start: float) -> float:
    fractions = sorted(curve)
    at, accuracy = np.log(fractions), np.array([curve[fraction] for fraction in fractions])
    grid = np.unique(np.r_[np.log(start), at[at > np.log(start)]])
    relative = np.interp(grid, at, accuracy / accuracy[-1])
    return float(np.trapezoid(relative, grid) / -grid[0])
