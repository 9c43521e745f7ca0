"""What a network that has not seen an example says of its label: K folds, trained or fitted."""

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raygrad.audit.folds import fold_numbers, head_probabilities
from raygrad.config.auditing import AuditConfig
from raygrad.data.index import Index
from raygrad.errors import ConfigError
from raygrad.pipeline.audit_looking import Seen, squares, typical_side
from raygrad.pipeline.noticing import code_of
from raygrad.progress import Progress
from raygrad.selection.keyed_random import random_bits
from raygrad.storage import files
from raygrad.storage.manifest import digest
from raygrad.training.fold_training import audit_recipe, judged_fold

log = logging.getLogger("raygrad")

_KEPT = ("probabilities", "features", "aum")
"""What is kept of a fold's training."""

MOST_SIDE = 64
"""Images are trained on as squares of at most so many pixels, so that an audit takes minutes."""


@dataclass(frozen=True)
class Judgement:
    """What is said of all examples."""

    probabilities: NDArray[np.float32]
    """Out-of-sample, ``[N, C]``."""
    features: NDArray[np.float32]
    """``[N, D]``; comparable within a space."""
    spaces: NDArray[np.int64]
    """Which network saw an example, ``[N]``: features of two have nothing in common."""
    how: str
    """In a few words, for people."""
    aum: NDArray[np.float32] | None = None
    """The area under the margin while the other folds' networks were trained on an example,
    higher = harder, their mean, ``[N]``; NaN where none was. None where no training was watched."""
    folds: NDArray[np.int64] | None = None
    """Which fold held an example, ``[N]``: what judged it was fitted to the others. None where each
    example was held alone."""

    def judgeable(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether what judged an example had seen another of its class, ``[N]``.

        Not so for an example that is alone in its class, nor where copies are all of a class: they
        are in one fold. Nobody could learn such a class, and a probability of it says nothing.

        Args:
            labels: Classes, ``[N]``.
        """
        if not len(labels):
            return np.zeros(0, np.bool_)
        folds = np.arange(len(labels)) if self.folds is None else self.folds
        first = np.full(labels.max() + 1, folds.max())
        last = np.full(labels.max() + 1, folds.min())
        np.minimum.at(first, labels, folds)
        np.maximum.at(last, labels, folds)
        return np.asarray(first < last)[labels]

    def gradient_norms(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the norms of the loss gradients by the last layer's weights and biases.

        ``|p - e_y| sqrt(1 + |x|^2)``: the gradient by them is the outer product of the error and of
        what enters the layer with a 1 for the biases.

        Args:
            labels: Classes, ``[N]``.
        """
        error = self.probabilities.astype(np.float64)
        error[np.arange(len(labels)), labels] -= 1.0
        entered = (self.features.astype(np.float64) ** 2).sum(axis=1)
        return np.linalg.norm(error, axis=1) * np.sqrt(1.0 + entered)


def own_code(network: str) -> list[str]:
    """Returns what the name of a kept training says of the user's own code; nothing without any.

    Args:
        network: The network's name.
    """
    return sorted(code_of(network).values())


def judge(
    audit: AuditConfig,
    network: str,
    index: Index,
    seen: Seen,
    groups: NDArray[np.int64],
    num_classes: int,
    channels: int,
    folder: str,
) -> Judgement:
    """Judges each example by what was fitted to the other folds; copies are in one fold.

    Args:
        audit: Folds, epochs, seed, sizes.
        network: The network's name.
        index: The data set.
        seen: What was seen of it, with features where there is a checkpoint.
        groups: Of repeats, ``[N]``, -1 for none.
        num_classes: C.
        channels: 1 or 3.
        folder: Where finished folds are kept, so that an interrupted audit goes on.

    Raises:
        ConfigError: All pictures are copies of one.
    """
    labels = seen.rows["label"].to_numpy()
    hashes = seen.rows["key_hash"].to_numpy()
    folds = fold_of_groups(labels, hashes, groups, audit.folds, audit.seed)
    # Copies share a fold: of few pictures that differ some folds can be empty.
    numbers = np.unique(folds).tolist()
    if len(numbers) < 2:
        raise ConfigError(
            f"an audit must have pictures that differ, got {len(labels):,} copies of one. Add "
            "others, or look whether the images were read as they should be."
        )
    if seen.features is not None:
        features = seen.features
        probabilities = head_probabilities(features, labels, folds, num_classes)
        how = f"linear heads on features of {network}, in {audit.folds} folds"
        spaces = np.zeros(len(labels), np.int64)
        return Judgement(probabilities, features, spaces, how, folds=folds)
    side = audit.image_size or typical_side(seen.rows, MOST_SIDE)
    probabilities = np.empty((len(labels), num_classes), np.float32)
    parts: list[NDArray[np.float32]] = []
    margins: list[NDArray[np.float32]] = []
    work = _Trainings(audit, len(numbers), network, side, folder, index, seen, channels)
    for fold in numbers:
        held = folds == fold
        found = work.of(fold, held, num_classes)
        probabilities[held] = found["probabilities"]
        parts.append(found["features"])
        margins.append(found["aum"])
    gathered = np.zeros((len(labels), max(part.shape[1] for part in parts)), np.float32)
    for fold, part in zip(numbers, parts, strict=True):
        gathered[folds == fold, : part.shape[1]] = part
    how = f"{network} trained in {len(numbers)} folds, at {side} pixels"
    return Judgement(probabilities, gathered, folds, how, _mean_of_known(margins), folds)


def _mean_of_known(values: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Returns the mean over those that are no NaN, NaN where all are, ``[N]``."""
    stacked = np.stack(values).astype(np.float64)
    known = np.isfinite(stacked)
    sums = np.where(known, stacked, 0.0).sum(axis=0)
    counts = known.sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means.astype(np.float32)


def fold_of_groups(
    labels: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    groups: NDArray[np.int64],
    num_folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Returns folds that no copy crosses: a copy in another fold would give the label away.

    Args:
        labels: Classes, ``[N]``.
        hashes: Of the keys, ``[N]``.
        groups: Of repeats, ``[N]``, -1 for none.
        num_folds: K.
        seed: Changes them.

    Returns:
        int64 ``[N]``, in ``0..K-1``.
    """
    folds = fold_numbers(labels, random_bits(seed, hashes), num_folds)
    joined = np.flatnonzero(groups >= 0)
    # The member of least hash speaks for its group, whatever the order of the examples.
    order = joined[np.lexsort((hashes[joined], groups[joined]))]
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    folds[order] = folds[order[first]][inverse]
    if len(np.unique(folds)) == 1:  # so few pictures differ that all of them fell into one
        alone = len(groups) + np.arange(len(groups))
        folds = np.unique(np.where(groups >= 0, groups, alone), return_inverse=True)[1] % num_folds
    return folds


class _Trainings:
    """One training a fold; images are decoded once, when the first fold needs them."""

    def __init__(
        self,
        audit: AuditConfig,
        num_folds: int,
        network: str,
        side: int,
        folder: str,
        index: Index,
        seen: Seen,
        channels: int,
    ) -> None:
        self._audit, self._network, self._side, self._folder = audit, network, side, folder
        self._index, self._seen, self._channels = index, seen, channels
        self._images: NDArray[np.uint8] | None = None
        self._progress = Progress("audit", num_folds, "folds")

    def of(
        self, fold: int, held: NDArray[np.bool_], num_classes: int
    ) -> Mapping[str, NDArray[np.float32]]:
        """Returns probabilities, features and AUM of a fold, kept or made now."""
        labels = self._seen.rows["label"].to_numpy()
        recipe = audit_recipe(
            self._network,
            self._audit.epochs,
            int((~held).sum()),
            self._side,
            self._audit.seed + 1000 * fold,
        )
        said = [self._seen.rows["digest"].to_pylist(), labels.tolist(), held.tolist(), recipe]
        name = digest([*map(str, said), self._side, _KEPT, *own_code(self._network)])[:12]
        url = files.join(self._folder, f"fold-{fold}-{name}.npz")
        if not files.exists(url):
            if self._images is None:
                self._images = squares(self._index, self._seen, self._channels, self._side)
            judged = judged_fold(
                self._images, labels, held, num_classes, recipe, None, self._audit.device
            )
            log.info("audit: fold %d, accuracy on what it has not seen %.3f", fold, judged.accuracy)
            out = io.BytesIO()
            np.savez(out, **{kept: getattr(judged, kept) for kept in _KEPT})
            files.write_bytes(url, out.getvalue())
        self._progress.add(1)
        kept = np.load(io.BytesIO(files.read_bytes(url)), allow_pickle=False)
        return {name: kept[name] for name in _KEPT}
