"""Scoring networks beside the run's own: the same recipe from other seeds.

A subset chosen by one network's scores says nothing of what another network, trained alike from
another seed, would have chosen. A replicate of the study is a scoring network with the draw, the
initial weights and the order of a retraining, each seeded anew.
"""

from dataclasses import dataclass, replace

from raygrad.config import StudyConfig
from raygrad.errors import ConfigError


@dataclass(frozen=True)
class Replicate:
    """One scoring network of a study."""

    seed: int | None
    """What its training was seeded with, or its number among checkpoints; None if nobody knows."""
    name: str
    """The name of its folders under train/ and scores/."""
    number: int | None
    """None for the run's own network, whose draws and retrainings are seeded as if it were the only
    one; the seed for any other."""
    checkpoint: int | None = None
    """Its number among the checkpoints of one score table, which hold a column each."""


def replicate_name(network: str, seed: int) -> str:
    """Returns the folder name of a network trained from another seed than the run's own."""
    trained = network.removesuffix("-dynamics")
    return f"{trained}-seed{seed}{network[len(trained) :]}"


def trained_replicates(config: StudyConfig) -> list[tuple[StudyConfig, str]]:
    """Returns the scoring networks that are trained beside the run's own: recipe and name of each.

    What is measured of the run's own training alone, its probe and bound, is not measured again.

    Raises:
        ConfigError: The network that is scored was not trained here.
    """
    others = [seed for seed in config.select.score_seeds if seed != config.train.seed]
    if not others or (config.score.is_own and len(config.score.checkpoint) > 1):
        return []
    if config.score.is_own:
        raise ConfigError(
            f"score_seeds need networks that are trained here or several checkpoints, got "
            f"{config.select.score_seeds} and {len(config.score.checkpoint)} checkpoints of "
            f"{config.score.network}. Name a checkpoint a seed, or leave --score-seeds out."
        )
    recipes = {
        seed: replace(config.train, seed=seed, probe_size=0, bound_epochs=()) for seed in others
    }
    return [
        (replace(config, train=recipes[seed]), replicate_name(config.train.network, seed))
        for seed in others
    ]


def compared_networks(config: StudyConfig) -> list[tuple[StudyConfig, str]]:
    """Returns the networks that are trained and scored to be compared: recipe and name of each.

    Their probe and bound are measured as the run's own are; its dynamics are not followed again.
    """
    own = config.train.network
    alone = replace(config.select, score_seeds=(), compare_networks=())
    return [
        (replace(config, select=alone, train=replace(config.train, network=n, dynamics=False)), n)
        for n in config.select.compare_networks
        if n != own and not config.score.is_own
    ]


def replicates(config: StudyConfig, stored: StudyConfig, network: str) -> list[Replicate]:
    """Returns the scoring networks that subsets are drawn by.

    Args:
        config: The study, whose `select.score_seeds` names them.
        stored: The configuration of the run that the scores come from.
        network: The network that was scored, of the run's own seed.

    Raises:
        ConfigError: A checkpoint of that number is not in the table.
    """
    seeds, num_checkpoints = config.select.score_seeds, len(stored.score.checkpoint)
    if stored.score.is_own and num_checkpoints > 1 and seeds:
        if max(seeds) >= num_checkpoints:
            raise ConfigError(
                f"score_seeds of several checkpoints must be their numbers, from 0 to "
                f"{num_checkpoints - 1}, got {seeds}. Give --score-seeds 0 to that."
            )
        return [Replicate(seed, network, seed, checkpoint=seed) for seed in seeds]
    own = None if stored.score.is_own else stored.train.seed
    if not seeds:
        return [Replicate(own, network, None)]
    return [
        Replicate(seed, network, None)
        if seed == own
        else Replicate(seed, replicate_name(network, seed), seed)
        for seed in seeds
    ]
