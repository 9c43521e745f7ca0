"""What leaving out costs: trained on all, on what is kept, and on as many at random."""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raygrad.audit.folds import head_trained_on
from raygrad.config.auditing import AuditConfig
from raygrad.data.index import Index
from raygrad.errors import ConfigError
from raygrad.pipeline.audit_judging import MOST_SIDE, own_code
from raygrad.pipeline.audit_looking import Seen, squares, typical_side
from raygrad.progress import Progress
from raygrad.selection.keyed_random import random_uniform
from raygrad.storage import files
from raygrad.storage.manifest import digest
from raygrad.training.fold_training import audit_recipe, judged_fold

log = logging.getLogger("raygrad")

SEEDS = 3
SETS = ("all", "kept", "random")
"""random is as many of all as are kept."""

_NORMAL, _STRIDE = 1.96, 7919


@dataclass(frozen=True)
class Check:
    """How networks that were trained on each set do on the test images."""

    right: dict[str, NDArray[np.bool_]]
    """Which test images each training is right about, by set, ``[S, T]``."""
    sizes: dict[str, int]
    """Training examples of each set."""

    def table(self) -> pa.Table:
        """Returns a row a training: set, examples, seed, test accuracy."""
        rows = [
            {"set": name, "examples": self.sizes[name], "seed": seed, "test_accuracy": value}
            for name, right in self.right.items()
            for seed, value in enumerate(right.mean(axis=1).tolist())
        ]
        return pa.Table.from_pylist(rows)

    def summary(self) -> dict[str, Any]:
        """Returns mean accuracies, what kept gains over the others, and all that in words."""
        found = {
            "num_test": int(self.right["all"].shape[1]),
            "sizes": dict(self.sizes),
            "trainings": {name: len(right) for name, right in self.right.items()},
            "accuracy": {name: float(right.mean()) for name, right in self.right.items()},
            "kept_less_all": self._difference("all"),
            "kept_less_random": self._difference("random"),
        }
        return found | {"words": _words(found)}

    def _difference(self, other: str) -> dict[str, float]:
        """Returns kept less another set, with its interval over the test images.

        Each image counts by the share of trainings that are right about it, in both sets: the
        interval holds which test images there are, and the trainings as they are. Where both sets
        are right about the same images it is not of width 0: up to so large a share of all images
        may differ where none of n did (the exact bound of a binomial, about 3 / n).
        """
        each = self.right["kept"].mean(axis=0) - self.right[other].mean(axis=0)
        mean, number = float(each.mean()), len(each)
        if number > 1 and each.any():
            half = _NORMAL * float(each.std(ddof=1)) / number**0.5
        else:
            half = float("nan") if number < 2 else 1.0 - 0.05 ** (1 / number)
        return {"mean": mean, "low": mean - half, "high": mean + half}


def _words(check: dict[str, Any]) -> str:
    """Returns what leaving out costs in a sentence, in points of test accuracy."""
    accuracy, sizes, number = (check[name] for name in ("accuracy", "sizes", "trainings"))
    sets = ", ".join(
        f"{name} {accuracy[name]:.1%} ({sizes[name]:,} images, n = {number[name]})" for name in SETS
    )
    differences = ", ".join(
        f"{100 * one['mean']:+.1f} points ({100 * one['low']:+.1f} to {100 * one['high']:+.1f}) "
        f"against {name}"
        for name, one in (("all", check["kept_less_all"]), ("random", check["kept_less_random"]))
    )
    return (
        f"test accuracy on {check['num_test']:,} images when trained on {sets}: kept is "
        f"{differences}, 95% over the test images; random is as many as are kept"
    )


def check_kept(
    audit: AuditConfig,
    network: str,
    index: Index,
    seen: Seen,
    groups: NDArray[np.int64],
    kept: NDArray[np.bool_],
    num_classes: int,
    channels: int,
    folder: str,
) -> Check:
    """Trains on each of `SETS`, and asks for the test images what comes out.

    With a checkpoint heads on its features are fitted, which have one minimum, so that only random
    sets differ by the seed; without, the network is trained by the audit's recipe. Test images with
    a copy among the training images do not count: they would reward keeping the copy.

    Args:
        audit: Seed, epochs, sizes.
        network: The network's name.
        index: The data set.
        seen: What was seen of it.
        groups: Of repeats, ``[N]``, -1 for none.
        kept: Training examples that stay, ``[N]``.
        num_classes: C.
        channels: 1 or 3.
        folder: Where finished trainings are kept.

    Raises:
        ConfigError: There is no test image to ask for, or nothing to train on.
    """
    train, asked = _asked(seen, groups)
    if kept.sum() < 2:
        raise ConfigError(
            f"a check must have two training images that are kept, got {kept.sum()}. Keep more: "
            "--keep-fraction."
        )
    sets = {"all": [train], "kept": [kept], "random": _as_many(audit.seed, seen, train, kept)}
    by_heads = seen.features is not None
    judge = (
        _heads(seen, asked, num_classes)
        if by_heads
        else _Trained(audit, network, index, seen, asked, num_classes, channels, folder)
    )
    seeds = {name: 1 if by_heads and name != "random" else SEEDS for name in SETS}
    progress = Progress("check", sum(seeds.values()), "trainings")
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in SETS}
    for name in SETS:
        for seed in range(seeds[name]):
            right[name].append(judge(sets[name][seed % len(sets[name])], seed))
            progress.add(1)
    sizes = {name: int(sets[name][0].sum()) for name in SETS}
    return Check({name: np.stack(of) for name, of in right.items()}, sizes)


def _asked(seen: Seen, groups: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which examples are trained on, and which test images are asked for."""
    splits = np.array(seen.rows["split"].to_pylist())
    train, test = splits == "train", splits == "test"
    leaked = (groups >= 0) & np.isin(groups, groups[train])
    asked = test & ~leaked
    if not asked.any():
        raise ConfigError(
            f"a check must have test images without a copy in training, got none of {test.sum()} "
            "test images. Name test data (--test-data), or do without --check."
        )
    return train, asked


def _as_many(
    seed: int, seen: Seen, train: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> list[NDArray[np.bool_]]:
    """Returns draws of as many training images as are kept, each by a seed of its own."""
    found = []
    for number in range(SEEDS):
        # No draw that keep itself may go by: a set would be compared with itself.
        bits = random_uniform(_STRIDE * (seed + number + 1), seen.rows["key_hash"].to_numpy())
        order = np.argsort(np.where(train, bits, np.inf), kind="stable")
        found.append(np.zeros(len(train), bool))
        found[-1][order[: kept.sum()]] = True
    return found


def _heads(
    seen: Seen, asked: NDArray[np.bool_], num_classes: int
) -> Callable[[NDArray[np.bool_], int], NDArray[np.bool_]]:
    labels = seen.rows["label"].to_numpy()
    features = seen.features
    assert features is not None

    def judge(trained: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
        found = head_trained_on(features, labels, trained, num_classes)
        return found[asked].argmax(axis=1) == labels[asked]

    return judge


class _Trained:
    """Trainings of the network, which are kept; images are decoded once, for the first of them."""

    def __init__(
        self,
        audit: AuditConfig,
        network: str,
        index: Index,
        seen: Seen,
        asked: NDArray[np.bool_],
        num_classes: int,
        channels: int,
        folder: str,
    ) -> None:
        self._audit, self._network, self._index, self._seen = audit, network, index, seen
        self._asked, self._num_classes, self._channels = asked, num_classes, channels
        self._folder = folder
        self._side = audit.image_size or typical_side(seen.rows, MOST_SIDE)
        self._images: NDArray[np.uint8] | None = None
        self._code = own_code(network)

    def __call__(self, trained: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
        """Returns which of the test images a training is right about, kept or made now."""
        labels = self._seen.rows["label"].to_numpy()
        number, epochs = int(trained.sum()), self._audit.epochs
        recipe = audit_recipe(
            self._network, epochs, number, self._side, self._audit.seed + _STRIDE * (seed + 1)
        )
        said = [self._seen.rows["digest"].to_pylist(), labels.tolist(), trained.tolist(), recipe]
        name = digest([*map(str, said), self._asked.tolist(), self._side, *self._code])[:12]
        url = files.join(self._folder, f"check-{name}.npz")
        if not files.exists(url):
            if self._images is None:
                self._images = squares(self._index, self._seen, self._channels, self._side)
            judged = judged_fold(
                self._images,
                labels,
                self._asked,
                self._num_classes,
                recipe,
                trained,
                self._audit.device,
            )
            out = io.BytesIO()
            np.savez(out, right=judged.probabilities.argmax(axis=1) == labels[self._asked])
            files.write_bytes(url, out.getvalue())
        return np.load(io.BytesIO(files.read_bytes(url)), allow_pickle=False)["right"]
