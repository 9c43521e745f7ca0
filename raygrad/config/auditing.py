"""What `raygrad audit` does, and what it keeps."""

from dataclasses import dataclass, field
from typing import Literal

from raygrad.config.declaring import ACTED_ON, BASIC, EXECUTION, fraction, positive, require

RANKINGS = (
    "tempered_odds",
    "noise_odds",
    "log_odds",
    "loss",
    "margin",
    "gradient_norm",
    "aum",
)
"""What labels can be ranked by; which is the default was measured: benchmarks/audit.py."""

GOALS = ("clean", "accuracy", "coverage")
"""What the kept set is for."""


@dataclass(frozen=True)
class AuditConfig:
    """How a data set is audited, and what is kept of it."""

    ON_CHANGE = "acted on"

    network: str | None = field(default=None, metadata=ACTED_ON | BASIC)
    """The network, by name or module:callable; by default the run's."""
    checkpoint: str | None = field(default=None, metadata=BASIC)
    """Its weights, best of a backbone that was trained elsewhere: linear heads on its features are
    fitted by folds. `pretrained` takes those that torchvision or timm publishes, with their size,
    mean and std. Without it the network itself is trained once a fold."""
    num_classes: int | None = None
    """Classes that the checkpoint tells apart, such as 1000; by default the data's."""
    image_size: int | None = field(default=None, metadata=BASIC)
    """The side of the square that the network sees, in pixels: by default 224 with a checkpoint;
    without, that of the images and at most 64."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """What the checkpoint's preprocessing subtracts, a channel, of pixels in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """What it divides by, a channel."""
    folds: int = 4
    """Parts of the data; each is judged by what was fitted to the others."""
    epochs: int = field(default=12, metadata=BASIC)
    """Passes of each fold's training, without a checkpoint."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=EXECUTION)
    """Where networks run, in this process, in exact float32; auto takes a GPU if there is one."""
    seed: int = 0
    """Seeds folds and trainings."""
    keep_fraction: float | None = field(default=None, metadata=BASIC)
    """The share of the training examples that is kept; by default all that nothing is wrong
    with."""
    goal: Literal["clean", "accuracy", "coverage"] = field(default="clean", metadata=BASIC)
    """clean: likely errors and repeats go first, then any. accuracy: those go, and of the rest
    stays what did best in the records at this share. coverage: those go, and the rest is spread
    over what the network sees."""
    ranking: Literal[
        "tempered_odds", "noise_odds", "log_odds", "loss", "margin", "gradient_norm", "aum"
    ] = field(default="tempered_odds", metadata=BASIC)
    """What says which label is likeliest wrong. loss: how unlikely it is to who has not seen the
    example. log_odds: how much likelier another class is. tempered_odds: between both. noise_odds:
    by which classes seem to be labelled as which, best where classes are taken for one another and
    the network is good. margin: how far another class is ahead. gradient_norm: of the last layer.
    aum: the margin while it was trained on, without a checkpoint."""
    check: bool = field(default=False, metadata=BASIC)
    """Train on all, on what is kept and on as many at random, and say what leaving out costs in
    test accuracy: three trainings each."""

    def __post_init__(self) -> None:
        for name in ("folds", "epochs", "image_size", "num_classes"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        require(self.folds >= 2, "folds must be at least 2", self.folds)
        if self.keep_fraction is not None:
            fraction("keep_fraction", self.keep_fraction)
        require(self.goal in GOALS, f"goal must be of {GOALS}", self.goal)
        require(self.ranking in RANKINGS, f"ranking must be of {RANKINGS}", self.ranking)
        require(
            self.ranking != "aum" or self.checkpoint is None,
            "ranking by aum must watch a training, which heads on a checkpoint's features have not",
            self.checkpoint,
            "Leave --checkpoint, or rank by another.",
        )
        require(
            self.checkpoint is None or self.network is not None,
            "checkpoint must come with its network",
            self.network,
            "Give --network.",
        )
        same = len(self.mean) == len(self.std) and min(self.std, default=0) > 0
        require(same, "mean and std must have a value a channel, std above 0", self.std)
