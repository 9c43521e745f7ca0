"""What a retraining is: which subset, which network, which seeds; nothing here needs torch."""

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Trial:
    """One retraining: which subset, which network, which seeds."""

    network: str
    """The network that is retrained."""
    score_network: str | None
    """The network that the scores came from; None for a subset that was made elsewhere."""
    score_column: str | None
    """The score that the subset was drawn by; None as above."""
    method: str
    """The method of selection."""
    keep_fraction: float
    """The share of examples kept."""
    budget: int
    """How many examples that is."""
    seed: int
    """The replicate, which seeds the draw; the other seeds are derived from it."""
    protocol: str
    """equal_epochs (the paper's) or equal_steps."""
    subset_digest: str
    """Hash of the subset's keys."""
    config_digest: str
    """Hash of the recipe and of the data set."""
    score_run: str | None = None
    """The other run that was scored, by its folder's name and its scores' digest; None for the
    run's own scores and for a subset that was made elsewhere."""
    score_seed: int | None = None
    """The seed of the scoring network, or its number among checkpoints; of a random subset that of
    the replicate that it stands beside; None where nobody knows."""
    score_replicate: int | None = None
    """The same where the scoring network is not the run's own: it sets the trial apart, and all of
    its seeds."""

    @property
    def id(self) -> str:
        """A name that is the same for the same trial and differs for any other.

        A random subset owes nothing to the scores: it is one trial whatever they were.
        """
        fields = asdict(self)
        if self.method == "random":
            fields |= {"score_network": None, "score_column": None}
        if self.method == "random" or self.score_run is None:
            del fields["score_run"]  # as rows were named that know of no other run
        # As rows were named that know of one scoring network: more of them add trials to it.
        del fields["score_seed"]
        if self.score_replicate is None:
            del fields["score_replicate"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def derived_seed(self, purpose: str) -> int:
        """Returns a seed for one purpose; no two purposes and no two replicates share one.

        Trials that differ in method alone share their seeds, so that methods are compared on the
        same initial weights.
        """
        if self.score_replicate is not None:
            return replicate_seed(purpose, self.seed, self.score_replicate)
        return _seed_of(f"{purpose}/{self.seed}")

    @property
    def subset_seed(self) -> int:
        """What seeded the draw."""
        return replicate_seed("draw", self.seed, self.score_replicate)


def name_of(trial: Trial) -> str:
    """Returns a trial's name for people."""
    scored = "" if trial.score_seed is None else f" scored from seed {trial.score_seed}"
    return (
        f"{trial.network} {trial.method} {trial.keep_fraction:g} seed {trial.seed}{scored} "
        f"{trial.protocol}"
    )


def replicate_seed(purpose: str, seed: int, replicate: int | None) -> int:
    """Returns a seed for one purpose of one replicate; the plain seed of the run's own network.

    Args:
        purpose: draw, init or order.
        seed: The seed of the draw and retraining.
        replicate: The scoring network's seed; None for the run's own.
    """
    return seed if replicate is None else _seed_of(f"{purpose}/{seed}/{replicate}")


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
