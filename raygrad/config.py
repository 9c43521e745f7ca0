"""The configuration of a study: frozen dataclasses, one a stage, checked when they are made.

A field is written once, here: the command-line flags of every stage and job are derived from it.
Names of methods, score columns and networks are checked by the floors that own them, before
anything starts.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from raygrad.errors import ConfigError

Protocol = Literal["equal_epochs", "equal_steps"]


EXECUTION: dict[str, Any] = {"execution": True}
"""Marks a field that says how work is done, not what comes out of it; see `identity`."""


def _require(holds: bool, rule: str, value: object, remedy: str = "") -> None:
    if not holds:
        raise ConfigError(f"{rule}, got {value!r}." + (f" {remedy}" if remedy else ""))


def _positive(name: str, value: float) -> None:
    _require(value > 0 and math.isfinite(value), f"{name} must be positive", value)


def _fraction(name: str, value: float) -> None:
    _require(0 < value <= 1, f"{name} must be in (0, 1]", value, "Give the share that is kept.")


@dataclass(frozen=True)
class DataConfig:
    """Which data set, and how it is cut into shards and splits."""

    source: tyro.conf.Positional[str] = "digits"
    """Where the examples come from; `raygrad prepare --help` lists the sources."""
    data_dir: str | None = field(default=None, metadata=EXECUTION)
    """The folder that holds the source's own files; not needed for digits."""
    download: bool = field(default=False, metadata=EXECUTION)
    """Fetch the source's files into data_dir if they are not there (mnist, cifar10, cifar100)."""
    tars: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--data",))] = ()
    """Your own training shards, used as they are, instead of a source: URLs with braces or globs,
    such as `s3://bucket/train-{0000..1023}.tar`."""
    test_tars: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--test-data",))] = ()
    """Your own test shards."""
    labels: str = "cls"
    """Where the labels of your own shards stand: cls, json:FIELD, or folder (of the key)."""
    channels: Literal[1, 3] = 3
    """Colour channels that your own shards are decoded to; a source knows its own."""
    image_size: int | None = None
    """Photographs of several sizes become squares of this many pixels: both sides are scaled to
    8/7 of it and the centre is cut out (256 and 224 in the paper); by default they stay."""
    max_examples: int | None = None
    """At most so many training examples, and a quarter as many test examples, from the first
    shards: to try the whole way. Classes that are then without an example are left out."""
    max_reject_share: float = 0.01
    """The largest share of examples that may be unusable, in [0, 1]."""
    strict: bool = False
    """Fail on the first unusable example."""
    out: str | None = field(default=None, metadata=EXECUTION)
    """Where the shards are written; by default `<run>/data/shards`."""
    shard_bytes: int = 256 * 2**20
    """About how large a shard becomes, in bytes."""
    val_fraction: float = 0.1
    """The share of the training examples held out for validation, chosen by a hash of the key."""
    split_seed: int = 0
    """Changes which examples are held out, and the order of examples over shards."""

    def __post_init__(self) -> None:
        _positive("shard_bytes", self.shard_bytes)
        for name in ("image_size", "max_examples"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        share = self.max_reject_share
        _require(0 <= share <= 1, "max_reject_share must be in [0, 1]", share)
        _require(0 < self.val_fraction < 1, "val_fraction must be in (0, 1)", self.val_fraction)


@dataclass(frozen=True)
class TrainConfig:
    """A network and how it is trained; retraining on subsets uses the same recipe."""

    network: str = "cnn"
    """A network by name, or your own as `module:callable`."""
    epochs: int = 30
    """Passes over the training split, at most."""
    batch_size: int = 64
    """Examples a step, over all workers together."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The update rule; sgd is with Nesterov momentum."""
    learning_rate: float = 0.05
    """The learning rate before any decay."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 5e-4
    """L2 penalty of sgd, decoupled decay of adamw."""
    lr_decay_epochs: tuple[int, ...] = (18, 25)
    """The learning rate is multiplied by `lr_decay_factor` when each of these epochs begins."""
    lr_decay_factor: float = 0.1
    """What the learning rate is multiplied by at each decay."""
    patience: int = 10
    """Training stops after this many epochs without a better validation accuracy."""
    seed: int = 0
    """Seeds the initial weights and the order of the data."""
    num_workers: int = field(default=2, metadata=EXECUTION)
    """Ray Train workers; fewer are used, and it is said, when the CPUs are fewer."""
    save_interval_s: float = field(default=10.0, metadata=EXECUTION)
    """A killed training loses at most about this many seconds; 0 saves after every epoch."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "patience", "num_workers"):
            _positive(name, getattr(self, name))
        _positive("lr_decay_factor", self.lr_decay_factor)
        _require(
            self.save_interval_s >= 0, "save_interval_s must be at least 0", self.save_interval_s
        )
        _require(0 <= self.momentum < 1, "momentum must be in [0, 1)", self.momentum)
        _require(self.weight_decay >= 0, "weight_decay must be at least 0", self.weight_decay)
        increasing = list(self.lr_decay_epochs) == sorted(set(self.lr_decay_epochs))
        _require(increasing, "lr_decay_epochs must increase", self.lr_decay_epochs)


@dataclass(frozen=True)
class ScoreConfig:
    """Which scores are computed for every training example, and with how many actors."""

    columns: tuple[str, ...] = ("grad_l2_last_layer_weights", "grad_l2_weights", "loss")
    """Score columns: grad_{l1,l2,linf}_{all,biases,weights,last_layer_weights}, loss, el2n,
    margin, entropy, least_confidence."""
    batch_size: int = field(default=256, metadata=EXECUTION)
    """Examples a forward pass; scores do not depend on it beyond rounding."""
    num_actors: int = field(default=2, metadata=EXECUTION)
    """Scoring actors of one CPU each; fewer are used, and it is said, when the CPUs are fewer."""

    def __post_init__(self) -> None:
        _require(len(self.columns) > 0, "columns must name at least one score", self.columns)
        _positive("batch_size", self.batch_size)
        _positive("num_actors", self.num_actors)


@dataclass(frozen=True)
class SelectConfig:
    """Which subsets are drawn from the scores."""

    methods: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--method",))] = (
        "random",
        "max_gradient",
        "non_extreme_max_gradient",
        "gradient_cdf",
    )
    """Methods of selection, by the paper's names."""
    keep_fractions: Annotated[tuple[float, ...], tyro.conf.arg(aliases=("--keep-fraction",))] = (
        0.01,
        0.03,
        0.1,
        0.3,
        1.0,
    )
    """Shares of the scored examples that are kept, each in (0, 1]."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(aliases=("--seed",))] = (0, 1, 2)
    """A subset is drawn, and a network retrained, for each seed."""
    score_column: str = "grad_l2_last_layer_weights"
    """The score that the methods rank or weight by."""
    drop_fraction: float = 0.05
    """The share of highest scores that non_extreme_max_gradient leaves out."""
    class_balanced: Literal["no", "even", "proportional"] = "no"
    """Draw within each class: equal quotas, or quotas in proportion to the classes."""
    missing: Literal["error", "drop", "hardest", "easiest"] = "error"
    """What becomes of scores that are not finite: an error that names the keys, never drawn, or
    counted as the hardest or easiest there is."""

    def __post_init__(self) -> None:
        for name in ("methods", "keep_fractions", "seeds"):
            values = getattr(self, name)
            _require(len(values) > 0, f"{name} must not be empty", values)
            _require(len(set(values)) == len(values), f"{name} must not repeat a value", values)
        for fraction in self.keep_fractions:
            _fraction("keep_fraction", fraction)
        _require(0 <= self.drop_fraction < 1, "drop_fraction must be in [0, 1)", self.drop_fraction)


@dataclass(frozen=True)
class SweepConfig:
    """How networks are retrained on the subsets."""

    protocols: tuple[Protocol, ...] = ("equal_epochs",)
    """equal_epochs: as many epochs as the full run (the paper's); equal_steps: as many updates."""
    max_concurrent: int = field(default=0, metadata=EXECUTION)
    """Trials at a time, one CPU each; 0 takes every CPU."""
    max_failures: int = field(default=1, metadata=EXECUTION)
    """How often a failed trial is tried again before it is listed as failed."""

    def __post_init__(self) -> None:
        _require(len(self.protocols) > 0, "protocols must not be empty", self.protocols)
        known = ("equal_epochs", "equal_steps")
        for protocol in self.protocols:
            _require(protocol in known, f"protocols must be of {known}", protocol)
        _require(self.max_concurrent >= 0, "max_concurrent must be at least 0", self.max_concurrent)
        _require(self.max_failures >= 0, "max_failures must be at least 0", self.max_failures)


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

    def __post_init__(self) -> None:
        _require(bool(self.run), "run must name a folder", self.run)
        chosen = self.select.score_column
        _require(
            chosen in self.score.columns,
            f"select.score_column must be one of score.columns {self.score.columns}",
            chosen,
            "Add it to score.columns or choose one of these.",
        )


def identity(section: Any) -> dict[str, Any]:
    """Returns the fields of a section that decide what comes out, without those of execution.

    What is None is not asked for and left out, so that a run keeps its identity when raygrad gains
    a field.

    Two runs whose sections have the same identity have the same results (up to the rounding that
    the number of workers brings into training), wherever and with however many workers they ran.
    """
    return {
        f.name: getattr(section, f.name)
        for f in dataclasses.fields(section)
        if not f.metadata.get("execution") and getattr(section, f.name) is not None
    }


def to_dict(config: StudyConfig) -> dict[str, Any]:
    """Returns the configuration as nested plain values, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> StudyConfig:
    """Returns the configuration that `to_dict` came from, from JSON or not.

    Raises:
        ConfigError: A field is unknown; the run folder was written by another version.
    """
    sections: dict[str, type] = {
        "data": DataConfig,
        "train": TrainConfig,
        "score": ScoreConfig,
        "select": SelectConfig,
        "sweep": SweepConfig,
    }
    made: dict[str, Any] = {"run": values.get("run", "")}
    for name, section in sections.items():
        given = values.get(name, {})
        unknown = set(given) - {f.name for f in dataclasses.fields(section)}
        _require(not unknown, f"config.{name} must have known fields only", sorted(unknown))
        made[name] = section(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        )
    return StudyConfig(**made)
