"""The paper's two attributes of a data set, simplicity and redundancy, from a sweep's results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
"""Accuracies of one seed by share kept; 1.0, the full data, is among them."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% confidence interval (Student's t)."""

    mean: float
    low: float
    high: float
    num_seeds: int
    """With one seed there is no interval: low and high are NaN."""

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return self.num_seeds > 1


@dataclass(frozen=True)
class Attributes:
    """What a sweep says about its data set."""

    simplicity: Estimate
    simplicity_from: float
    """The smallest share kept that it covers."""
    redundancy: dict[str, Estimate]
    """Of each method: the share that can be left out within the accuracy loss, in [0, 1)."""
    best_method: str
    """The method of largest mean redundancy; of equal ones random, then the first by name."""
    gain: Estimate
    """The best method's redundancy minus random's, seed by seed."""


def attributes(
    results: Mapping[str, Sequence[Any]], *, max_loss: float = MAX_LOSS
) -> dict[tuple[str, str], Attributes]:
    r"""Returns simplicity and redundancy for each network and protocol of a sweep.

    The paper names the two attributes and reads them off its figures; as numbers they are here:

    - simplicity: the area under random's accuracy over the logarithm of the share kept, relative
      to full accuracy and to the axis: 1 if any subset teaches as much as the whole. It begins
      at 1% of the data, or where the measured curve does if that is later.

      .. math:: \frac{1}{\ln(1/f_0)} \int_{f_0}^1 \frac{a(f)}{a(1)} \, \mathrm{d} \ln f

    - redundancy: the largest share :math:`1 - f` that a method may leave out with accuracy of at
      least :math:`a(1) - \text{max\_loss}`, at every fraction from there up; between two
      fractions the accuracy is taken as linear in log f.

    Each is computed seed by seed and averaged. The full accuracy of a seed is that of
    keep_fraction 1, whatever method it is filed under. Choosing the best of several methods on
    the same seeds flatters the gain; with few seeds read it beside its interval.

    Args:
        results: Columns network, method, keep_fraction, seed, protocol, test_accuracy.
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
    cells: dict[tuple[str, str], list[tuple[str, float, int, float]]] = {}
    rows = zip(*(results[name] for name in names), strict=True)
    for network, method, fraction, seed, protocol, accuracy in rows:
        if accuracy is None or not np.isfinite(accuracy):
            continue  # A failed trial; the estimate's num_seeds tells.
        entry = (str(method), float(fraction), int(seed), float(accuracy))
        cells.setdefault((str(network), str(protocol)), []).append(entry)
    for (network, _), entries in cells.items():
        if not any(fraction == 1.0 for _, fraction, _, _ in entries):
            # On the full data the protocols train alike: one of them stands for all.
            others = [row for (name, _), rows in cells.items() if name == network for row in rows]
            entries += [row for row in others if row[1] == 1.0]
    return {key: _of_network(key, entries, max_loss) for key, entries in cells.items()}


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean of values, one a seed, with its 95% confidence interval."""
    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return Estimate(float(found.mean()), float("nan"), float("nan"), len(found))
    freedom = len(found) - 1
    t = _T_975[freedom - 1] if freedom <= len(_T_975) else 1.96
    half = t * float(found.std(ddof=1)) / float(np.sqrt(len(found)))
    mean = float(found.mean())
    return Estimate(mean, mean - half, mean + half, len(found))


def _of_network(
    key: tuple[str, str], entries: list[tuple[str, float, int, float]], max_loss: float
) -> Attributes:
    full = {seed: accuracy for _, fraction, seed, accuracy in entries if fraction == 1.0}
    curves: dict[str, dict[int, dict[float, float]]] = {}
    for method, fraction, seed, accuracy in entries:
        if fraction < 1.0 and seed in full:
            curve = curves.setdefault(method, {}).setdefault(seed, {1.0: full[seed]})
            if curve.setdefault(fraction, accuracy) != accuracy:
                raise DataError(
                    f"a method must have one accuracy at each share and seed, got two for {method} "
                    f"at {fraction:g}, seed {seed}, of {' '.join(key)}. Give the rows of one "
                    "score_network, score_column and score_run, or name their methods apart."
                )
    if "random" not in curves:
        raise DataError(
            "simplicity needs random subsets and keep_fraction 1 of the same seed, got neither or "
            f"one for {' '.join(key)}. Sweep with both."
        )
    return curve_attributes(curves, max_loss=max_loss)


def curve_attributes(
    curves: Mapping[str, Mapping[Any, Curve]], *, max_loss: float = MAX_LOSS
) -> Attributes:
    """Returns what `attributes` says, from curves.

    Args:
        curves: By method, random among them, then by seed.
        max_loss: The accepted loss of accuracy.

    Raises:
        DataError: The best method shares no seed with random.
    """
    start = max(SIMPLICITY_FROM, *(min(curve) for curve in curves["random"].values()))
    simplicity = estimate([_simplicity(curve, start) for curve in curves["random"].values()])
    shares = {
        method: {seed: _redundancy(curve, max_loss) for seed, curve in by_seed.items()}
        for method, by_seed in curves.items()
    }
    redundancy = {
        method: _clipped(estimate(list(of.values()))) for method, of in sorted(shares.items())
    }
    best = max(redundancy, key=lambda method: (redundancy[method].mean, method == "random"))
    both = sorted(set(shares[best]) & set(shares["random"]))
    if not both:
        raise DataError(f"{best} and random must share a seed, got none in {sorted(curves)}.")
    gain = estimate([shares[best][seed] - shares["random"][seed] for seed in both])
    return Attributes(simplicity, start, redundancy, best, gain)


def _clipped(share: Estimate) -> Estimate:
    """Returns an interval within [0, 1], where a share is; NaN stays."""
    low, high = (float(np.clip(end, 0, 1)) for end in (share.low, share.high))
    return Estimate(share.mean, low, high, share.num_seeds)


def _points(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    fractions = sorted(curve)
    return np.log(fractions), np.array([curve[fraction] for fraction in fractions])


def _simplicity(curve: Curve, start: float) -> float:
    at, accuracy = _points(curve)
    grid = np.unique(np.r_[np.log(start), at[at > np.log(start)]])
    relative = np.interp(grid, at, accuracy / accuracy[-1])
    return float(np.trapezoid(relative, grid) / -grid[0])


def _redundancy(curve: Curve, max_loss: float) -> float:
    at, accuracy = _points(curve)
    enough = accuracy[-1] - max_loss
    below = np.flatnonzero(accuracy < enough)
    if not below.size:
        return float(1 - np.exp(at[0]))
    last = below[-1]
    rise = (enough - accuracy[last]) / (accuracy[last + 1] - accuracy[last])
    return float(1 - np.exp(at[last] + rise * (at[last + 1] - at[last])))
