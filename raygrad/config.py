"""The configuration of a study: frozen dataclasses, one a stage, checked when they are made.

A field is written once, here: the command-line flags of every stage and job are derived from it.
Names of methods, score columns and networks are checked by the floors that own them, before
anything starts.
"""

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
    memory_bytes: int = field(default=4 * 2**30, metadata=EXECUTION)
    """Data sets that take up to this many bytes once they are decoded are held in memory, once a
    node; larger ones are decoded once a node into files in `cache_dir`, which processes map."""
    cache_dir: str | None = field(default=None, metadata=EXECUTION)
    """A folder on each node's own disk; by default `raygrad-images` in its temporary folder."""
    val_fraction: float = 0.1
    """The share of the training examples held out for validation, chosen by a hash of the key."""
    split_seed: int = 0
    """Changes which examples are held out, and the order of examples over shards."""

    def __post_init__(self) -> None:
        _positive("shard_bytes", self.shard_bytes)
        _require(self.memory_bytes >= 0, "memory_bytes must be at least 0", self.memory_bytes)
        for name in ("image_size", "max_examples"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        share = self.max_reject_share
        _require(0 <= share <= 1, "max_reject_share must be in [0, 1]", share)
        _require(0 <= self.val_fraction < 1, "val_fraction must be in [0, 1)", self.val_fraction)


@dataclass(frozen=True)
class TrainConfig:
    """A network and how it is trained; retraining on subsets uses the same recipe."""

    network: str = "cnn"
    """A network by name, or your own as `module:callable`."""
    epochs: int = 30
    """Passes over the training split, at most."""
    batch_size: int = 64
    """Examples a step, over all workers together, at most; an epoch's batches are of even size."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The update rule; sgd is with Nesterov momentum."""
    learning_rate: float = 0.05
    """The learning rate before any decay."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 5e-4
    """L2 penalty of sgd, decoupled decay of adamw."""
    schedule: Literal["step", "cosine"] = "step"
    """How the learning rate falls: by steps at `lr_decay_epochs`, or along half a cosine to 0."""
    lr_decay_epochs: tuple[int, ...] = (18, 25)
    """With `schedule` step: the rate is multiplied by `lr_decay_factor` when each of these epochs
    begins."""
    lr_decay_factor: float = 0.1
    """With `schedule` step: what the learning rate is multiplied by at each decay."""
    warmup_epochs: float = 0.0
    """The learning rate rises linearly from 0 over this many first epochs; 0 is no warm-up."""
    augment: Literal["none", "shift", "shift_flip"] = "none"
    """How training images are varied: not; moved by up to `augment_pixels` and filled with black
    (for digits, which must not be mirrored); or that and mirrored half of the time."""
    augment_pixels: int = 2
    """The farthest that an image is moved along each side, in pixels."""
    patience: int = 10
    """Training stops after this many epochs without a better validation accuracy."""
    validation_steps: int = 1
    """At least this many steps lie between two validations: epochs of fewer steps, as small subsets
    have them, are validated every few epochs, which can be most of what they cost."""
    precision: Literal["float32", "bf16"] = "float32"
    """The arithmetic of training's forward and backward passes: float32, or bfloat16 by autocast
    with float32 weights. Validation and test are float32 always."""
    seed: int = 0
    """Seeds the initial weights, the order of the data and its augmentation."""
    dynamics: bool = False
    """Follow every training example through training and write scores of how it was learned:
    forgetting, aum, dyn_unc, dual, el2n_mean, mean_probability."""
    probe_size: int = 0
    """Random training examples whose gradient norms are measured after every epoch (the paper's
    Figures 2 and 5 show 512); 0 measures none."""
    bound_epochs: tuple[int, ...] = ()
    """After these epochs, counted from 1, the gradients' norms of random batches are set against
    the sums of their examples' norms (the paper's Figure 1)."""
    bound_batches: int = 50
    """Batches that are measured after each of `bound_epochs`."""
    num_workers: int = field(default=2, metadata=EXECUTION)
    """Ray Train workers; fewer are used, and it is said, when the CPUs are fewer."""
    min_workers: int = field(default=0, metadata=EXECUTION)
    """Go on with as few workers as these where nodes are lost, and with more again where there
    are more; 0 waits for all `num_workers`."""
    cpus_per_worker: int = field(default=1, metadata=EXECUTION)
    """CPUs, and threads, of each worker."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=EXECUTION)
    """Where workers train; auto takes GPUs where the cluster has one for every worker."""
    channels_last: bool = field(default=False, metadata=EXECUTION)
    """Keep images and convolutions in the layout NHWC, which can be faster; rounding differs."""
    compile: bool = field(default=False, metadata=EXECUTION)
    """Compile the network with torch.compile, which needs a C++ compiler; rounding differs."""
    track: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = field(
        default=(), metadata=EXECUTION
    )
    """Who is told of training's epochs: tensorboard (under
    `<run>/train/<network>/tensorboard`), mlflow, wandb (Weights & Biases)."""
    save_interval_s: float = field(default=10.0, metadata=EXECUTION)
    """A killed training loses at most about this many seconds; 0 saves after every epoch."""

    def __post_init__(self) -> None:
        for name in (
            "epochs", "batch_size", "learning_rate", "patience", "validation_steps", "num_workers",
            "lr_decay_factor", "cpus_per_worker", "augment_pixels", "bound_batches",
        ):  # fmt: skip
            _positive(name, getattr(self, name))
        for name in (
            "save_interval_s", "weight_decay", "probe_size", "warmup_epochs", "min_workers"
        ):  # fmt: skip
            value = getattr(self, name)
            _require(value >= 0, f"{name} must be at least 0", value)
        _require(0 <= self.momentum < 1, "momentum must be in [0, 1)", self.momentum)
        for name in ("lr_decay_epochs", "bound_epochs"):
            epochs = getattr(self, name)
            _require(list(epochs) == sorted(set(epochs)), f"{name} must increase", epochs)
        _require(
            self.bound_epochs[:1] > (0,) or not self.bound_epochs,
            "bound_epochs must be counted from 1",
            self.bound_epochs,
        )
        for name, known in (
            ("schedule", ("step", "cosine")),
            ("augment", ("none", "shift", "shift_flip")),
            ("precision", ("float32", "bf16")),
            ("device", ("auto", "cpu", "cuda")),
        ):
            _require(
                getattr(self, name) in known, f"{name} must be of {known}", getattr(self, name)
            )


@dataclass(frozen=True)
class ScoreConfig:
    """Which scores are computed for every training example, with which network, on what."""

    columns: tuple[str, ...] = ("grad_l2_last_layer_weights", "grad_l2_weights", "loss")
    """Score columns: grad_{l1,l2,linf}_{all,biases,weights,last_layer_weights}, loss, el2n,
    margin, entropy, least_confidence; grand is the mean of grad_l2_all over the checkpoints."""
    network: str | None = None
    """A network of your choice by name, or module:callable; by default the run's trained one."""
    checkpoint: tuple[str, ...] = ()
    """Its weights: a state_dict (.pt), .safetensors, or raygrad's own; local or s3://. Several are
    scored in one pass, a column each and their mean. Without any, fresh weights from a seed."""
    num_classes: int | None = None
    """Classes that your network tells apart; by default as many as the labels count."""
    weights_seed: int = 0
    """Seeds fresh weights."""
    image_size: int = 224
    """The side of the square that your network sees, in pixels."""
    resize: int | None = None
    """What images are scaled to before the centre is cut out; by default 256 for an image_size of
    224, and the image_size itself otherwise."""
    keep_aspect: bool = True
    """Scale the shorter side, as torchvision does, and not both sides."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """What your network's preprocessing subtracts, a channel, of pixels in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """What it divides by, a channel."""
    dtype: Literal["float32", "bf16"] = "float32"
    """bf16 runs the passes under autocast: faster, rounded to 8 bits; rank correlation of scores
    with float32's was 0.9999 on trained networks, and 92 to 100% of the hardest 1% the same."""
    features: bool = False
    """Also write the penultimate features, float16, to scores/<network>/features/."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=EXECUTION)
    """Where networks run; auto takes GPUs where the cluster has one."""
    actors_per_gpu: int = field(default=1, metadata=EXECUTION)
    """Actors that share a GPU."""
    channels_last: bool = field(default=False, metadata=EXECUTION)
    """Use the memory format NHWC."""
    batch_size: int = field(default=0, metadata=EXECUTION)
    """Examples a pass, 0 for what memory holds; scores do not depend on it beyond rounding."""
    min_actors: int = field(default=1, metadata=EXECUTION)
    """The pool of actors never shrinks below this."""
    max_actors: int = field(default=0, metadata=EXECUTION)
    """The pool never grows above this; 0 is what the cluster holds when scoring begins."""
    decode_threads: int = field(default=0, metadata=EXECUTION)
    """Threads of an actor that decode; 0 is one on a CPU, a share of the CPUs beside a GPU."""
    shard_timeout_s: float = field(default=600.0, metadata=EXECUTION)
    """An actor without progress for so long is ended, and its shard tried elsewhere."""
    price_per_hour: float = field(default=0.0, metadata=EXECUTION)
    """What an hour of a CPU core, or of a GPU on cuda, costs; gives the cost a million examples."""

    def __post_init__(self) -> None:
        _require(len(self.columns) > 0, "columns must name at least one score", self.columns)
        for name in ("image_size", "actors_per_gpu", "min_actors", "shard_timeout_s"):
            _positive(name, getattr(self, name))
        for name in ("batch_size", "max_actors", "decode_threads", "price_per_hour"):
            _require(getattr(self, name) >= 0, f"{name} must be at least 0", getattr(self, name))
        most = self.max_actors or self.min_actors
        _require(self.min_actors <= most, "min_actors must not exceed max_actors", self.min_actors)
        resize = self.resize if self.resize is not None else self.image_size
        _require(resize >= self.image_size, "resize must be at least image_size", self.resize)
        same = len(self.mean) == len(self.std)
        _require(same, "mean and std must have a value a channel each", (self.mean, self.std))
        _require(min(self.std, default=0) > 0, "std must be positive", self.std)

    @property
    def is_own(self) -> bool:
        """Whether a network of the user's choice is scored, not the run's trained one."""
        return self.network is not None or bool(self.checkpoint)


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
    score_run: str | None = None
    """Another run folder whose scores the subsets are drawn by; by default the run's own."""
    score_network: str | None = None
    """The network whose scores these are; by default the one of the run that they come from."""
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

    networks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--network",))] = ()
    """The networks that are retrained, by name or as `module:callable`; none: the run's. They need
    not be the network that the scores come from."""
    protocols: tuple[Protocol, ...] = ("equal_epochs",)
    """equal_epochs: as many epochs as the full run (the paper's); equal_steps: as many updates."""
    early_termination: Literal["no", "asha"] = "no"
    """asha ends trials whose validation accuracy is clearly below the others' (asynchronous
    successive halving, over all trials together: small subsets go first). They are listed without
    a test accuracy, so a study that needs every point leaves this off."""
    max_concurrent: int = field(default=0, metadata=EXECUTION)
    """Trials at a time; 0: as many as the cluster holds."""
    workers_per_trial: int = field(default=1, metadata=EXECUTION)
    """Processes that train one trial together (DDP)."""
    cpus_per_worker: float = field(default=1.0, metadata=EXECUTION)
    """CPUs of each of them; a fraction packs several trials on a CPU."""
    gpus_per_worker: float = field(default=0.0, metadata=EXECUTION)
    """GPUs of each of them; a fraction packs several trials on a GPU, 0 trains on the CPU."""
    max_failures: int = field(default=2, metadata=EXECUTION)
    """How often a failed trial is tried again before it is listed as failed."""
    tensorboard: bool = field(default=False, metadata=EXECUTION)
    """Write every trial's epochs for TensorBoard, under `<run>/sweep/tune`."""

    def __post_init__(self) -> None:
        repeats = len(set(self.networks)) < len(self.networks)
        _require(not repeats, "networks must not repeat a name", self.networks)
        _positive("workers_per_trial", self.workers_per_trial)
        _positive("cpus_per_worker", self.cpus_per_worker)
        gpus = self.gpus_per_worker
        whole = gpus <= 1 or gpus == int(gpus)
        _require(gpus >= 0, "gpus_per_worker must be at least 0", gpus)
        _require(whole, "gpus_per_worker must be whole where it is above 1", gpus)
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
        elsewhere = self.select.score_run is not None or self.select.score_network is not None
        _require(
            elsewhere or chosen in self.score.columns,
            f"select.score_column must be one of score.columns {self.score.columns}",
            chosen,
            "Add it to score.columns or choose one of these.",
        )
