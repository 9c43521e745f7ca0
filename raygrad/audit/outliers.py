"""What does not belong: far from every class, or hardly a picture at all."""

import numpy as np
from numpy.typing import NDArray

BLANK_CONTRAST = 2.0
"""Below this standard deviation of the greys, of 255 levels, a picture shows nothing."""

ONE_COLOUR = 0.98
"""Above this share of pixels of one colour a picture is nearly one colour."""

TINY = 0.25
"""A picture whose sides are below this share of the median sides is tiny."""

_MOST_DIMENSIONS = 64
_FAR = 4.0


def class_distances(
    features: NDArray[np.floating], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    r"""Returns each example's distance to the nearest class, over the median distance.

    .. math:: \min_c \sqrt{(x - \mu_c)^\top \Sigma^{-1} (x - \mu_c)}

    with one covariance of all classes (Lee et al. 2018, arXiv 1807.03888, equation 2), in the 64
    directions of most variance at most, shrunk towards their mean variance.

    Args:
        features: Of one network, ``[N, D]``.
        labels: Classes, ``[N]``.

    Returns:
        float64 ``[N]``, at least 0; 1 is an example as far as the middle one.
    """
    values = features.astype(np.float64)
    values = values - values.mean(axis=0)
    if values.shape[1] > _MOST_DIMENSIONS:
        _, vectors = np.linalg.eigh(values.T @ values)
        values = values @ vectors[:, -_MOST_DIMENSIONS:]
    classes, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    means = np.zeros((len(classes), values.shape[1]))
    np.add.at(means, codes, values)
    means /= counts[:, None]
    within = values - means[codes]
    covariance = within.T @ within / max(len(values) - len(classes), 1)
    size = len(covariance)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / size * np.eye(size)
    factor = np.linalg.cholesky(shrunk + 1e-12 * np.eye(size))
    points, centres = np.linalg.solve(factor, values.T).T, np.linalg.solve(factor, means.T).T
    squares = (points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
    nearest = np.sqrt(np.maximum(squares.min(axis=1), 0.0))
    middle = float(np.median(nearest))
    return nearest / middle if middle > 0 else nearest


def far_from_all(distances: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which distances stand out: over 4 robust deviations of the logarithm above all.

    Args:
        distances: Of `class_distances`, ``[N]``.
    """
    logs = np.log(np.maximum(distances, 1e-12))
    middle = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - middle))
    return logs > middle + _FAR * max(float(spread), 1e-6)


def odd_pictures(
    widths: NDArray[np.int64],
    heights: NDArray[np.int64],
    contrasts: NDArray[np.floating],
    one_colours: NDArray[np.floating],
) -> list[str]:
    """Returns what is odd about each picture: blank, one colour, tiny, or nothing, ``""``.

    Args:
        widths: In pixels, ``[N]``.
        heights: In pixels, ``[N]``.
        contrasts: Standard deviations of the greys, ``[N]``.
        one_colours: Shares of pixels of the commonest colour, ``[N]``.
    """
    shorter = np.minimum(widths, heights)
    tiny = shorter < TINY * np.median(shorter) if len(shorter) else shorter
    reasons = []
    for at in range(len(widths)):
        if contrasts[at] < BLANK_CONTRAST:
            reasons.append("blank")
        elif one_colours[at] >= ONE_COLOUR:
            reasons.append("nearly one colour")
        else:
            reasons.append("tiny" if tiny[at] else "")
    return reasons
