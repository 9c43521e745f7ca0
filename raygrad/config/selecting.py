"""The section select: which subsets are drawn from the scores."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro

from raygrad.config.declaring import BASIC, EXECUTION, fraction, require


@dataclass(frozen=True)
class SelectConfig:
    """Which subsets are drawn from the scores."""

    ON_CHANGE: ClassVar[str] = "acted on"
    """More subsets are drawn beside those that are there."""

    methods: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--method",))] = field(
        default=(
            "random",
            "max_gradient",
            "non_extreme_max_gradient",
            "gradient_cdf",
        ),
        metadata=BASIC,
    )
    """Methods of selection, by the paper's names."""
    keep_fractions: Annotated[tuple[float, ...], tyro.conf.arg(aliases=("--keep-fraction",))] = (
        field(
            default=(
                0.01,
                0.03,
                0.1,
                0.3,
                1.0,
            ),
            metadata=BASIC,
        )
    )
    """Shares of the scored examples that are kept, each in (0, 1]."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(aliases=("--seed",))] = field(
        default=(0, 1, 2), metadata=BASIC
    )
    """A subset is drawn, and a network retrained, for each seed."""
    score_seeds: tuple[int, ...] = ()
    """Seeds of scoring networks: one is trained and scored from each, and subsets are drawn and
    retrained by every one of them, so that intervals are over scoring networks. None: the run's own
    network alone, and every result holds given that one. Of several checkpoints of your own network
    they are the numbers, from 0."""
    compare_networks: tuple[str, ...] = ()
    """Other networks that are trained by the same recipe and scored too, so that the report says
    how far networks agree on what is hard. No subset is drawn by their scores."""
    score_column: str = field(default="grad_l2_last_layer_weights", metadata=BASIC)
    """The score that the methods rank or weight by."""
    score_run: str | None = None
    """Another run folder whose scores the subsets are drawn by; by default the run's own."""
    score_network: str | None = None
    """The network whose scores these are; by default the one of the run that they come from."""
    drop_fraction: float = 0.05
    """The share of highest scores that non_extreme_max_gradient leaves out."""
    ccs_drop: Literal["fixed", "cifar10", "cifar100", "imagenet"] = "fixed"
    """The share of highest scores that ccs leaves out: a tenth, or what its authors leave out at
    each budget of one of their data sets."""
    class_balanced: Literal["no", "even", "proportional"] = "no"
    """Draw within each class: equal quotas, or quotas in proportion to the classes."""
    options: tuple[str, ...] = ()
    """Options of the methods, METHOD.NAME=VALUE, such as d2.num_neighbours=5; `raygrad select
    --list` names them with what they are by default."""
    missing: Literal["error", "drop", "hardest", "easiest"] = "error"
    """What becomes of scores that are not finite: an error that names the keys, never drawn, or
    counted as the hardest or easiest there is."""

    make_features: bool = field(default=False, metadata=EXECUTION)
    """Make the features that a method reads where there are none, in a pass over the images; by
    default it is said how. `raygrad run` makes them in any case."""
    fresh_scores: bool = field(default=False, metadata=EXECUTION)
    """Draw by the scores of fresh random weights, which is refused otherwise."""

    def __post_init__(self) -> None:
        for name in ("methods", "keep_fractions", "seeds"):
            values = getattr(self, name)
            require(len(values) > 0, f"{name} must not be empty", values)
            require(len(set(values)) == len(values), f"{name} must not repeat a value", values)
        others = self.compare_networks
        require(len(set(others)) == len(others), "compare_networks must not repeat a name", others)
        seeds = self.score_seeds
        require(len(set(seeds)) == len(seeds), "score_seeds must not repeat a value", seeds)
        require(min(seeds, default=0) >= 0, "score_seeds must be at least 0", seeds)
        for share in self.keep_fractions:
            fraction("keep_fraction", share)
        require(0 <= self.drop_fraction < 1, "drop_fraction must be in [0, 1)", self.drop_fraction)
