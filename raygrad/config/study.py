"""A whole study: its run folder and a section a stage."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from raygrad.config.data import DataConfig
from raygrad.config.declaring import BASIC, EXECUTION, require
from raygrad.config.scoring import ScoreConfig
from raygrad.config.selecting import SelectConfig
from raygrad.config.sweeping import SweepConfig
from raygrad.config.training import TrainConfig

DEFAULT_WAIT_S = 1800.0
"""An autoscaler brings a node within minutes, or shows within the half hour that it will not."""


@dataclass(frozen=True)
class StudyConfig:
    """A whole study: data, training, scores, subsets and the sweep over them."""

    run: Annotated[str, tyro.conf.arg(aliases=("--storage",))]
    """The run folder, on local disk or s3://; the same folder again goes on where it stopped."""
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    wait_s: float = field(default=DEFAULT_WAIT_S, metadata=EXECUTION | BASIC)
    """How long a stage waits for room on the cluster, in seconds, before it ends with exit status
    3; inf waits for ever."""

    @property
    def scored_network(self) -> str:
        """The network whose scores are asked for: one named for it, or the one that is trained."""
        return self.score.network or self.train.network

    @property
    def trial_data(self) -> str:
        """Where retrainings have their images from: the sweep's own way, or training's."""
        return self.train.data if self.sweep.data == "train" else self.sweep.data

    def __post_init__(self) -> None:
        require(bool(self.run), "run must name a folder", self.run)
        require(self.wait_s >= 0, "wait_s must be at least 0", self.wait_s)
        self.train.check_photo(self.trial_data)
        chosen = self.select.score_column
        elsewhere = self.select.score_run is not None or self.select.score_network is not None
        require(
            elsewhere or chosen in self.score.columns,
            f"select.score_column must be one of score.columns {self.score.columns}",
            chosen,
            "Add it to score.columns or choose one of these.",
        )
