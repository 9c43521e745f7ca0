"""The section train: a network and how it is trained."""

from dataclasses import dataclass, field
from typing import Literal

from raygrad.config.declaring import ACTED_ON, BASIC, EXECUTION, fraction, positive, require
from raygrad.config.nodes import check_nodes

PHOTO_AUGMENTATIONS = ("photo_crop", "photo_resized_crop")
"""Those that start from the stored photograph, which streamed images alone do."""

AUGMENTATIONS = (
    "shift", "shift_flip", "flip", "alternating_flip", "random_resized_crop", "cutout", "mixup",
    *PHOTO_AUGMENTATIONS,
)  # fmt: skip
"""The names that `augment` may join by +."""

DATA_WAYS = ("auto", "memory", "disk", "stream")
"""Where training has its images from."""


@dataclass(frozen=True)
class TrainConfig:
    """A network and how it is trained; retraining on subsets uses the same recipe."""

    network: str = field(default="cnn", metadata=ACTED_ON | BASIC)
    """A network by name, or your own as `module:callable`."""
    epochs: int = field(default=30, metadata=BASIC)
    """Passes over the training split, at most."""
    batch_size: int = field(default=64, metadata=BASIC)
    """Examples a step, over all workers together, at most; an epoch's batches are of even size."""
    loss: str = "cross_entropy"
    """What is minimised, its mean over a batch: cross_entropy, label_smoothing=SHARE,
    class_weights=W0,W1,..., binary_cross_entropy, focal=GAMMA, or your own as `module:callable`, of
    logits [B, C] and classes [B] to [B] or to their sum (no mean). Scores are gradients of the same
    loss; validation is by accuracy, then cross-entropy."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """The update rule; sgd is with Nesterov momentum. muon moves filters of convolutions by
    orthogonalised momentum and keeps their norm, for networks with batch norm behind each; the rest
    by sgd, at rates of its own."""
    learning_rate: float = field(default=0.05, metadata=BASIC)
    """The learning rate before any decay."""
    momentum: float = 0.9
    """Momentum of sgd, and of the filters with muon."""
    weight_decay: float = 5e-4
    """L2 penalty of sgd, decoupled decay of adamw; with muon the share that a step at the full rate
    takes from all that is no filter."""
    rest_learning_rate: float = 0.05
    """With `optimizer` muon: the rate of what is neither a filter nor the last layer's weight."""
    last_layer_learning_rate: float = 0.05
    """With `optimizer` muon: the rate of the last layer's weight."""
    rest_momentum: float = 0.9
    """With `optimizer` muon: momentum of all that is no filter."""
    schedule: Literal["step", "cosine", "linear"] = "step"
    """How the learning rate falls: by steps at `lr_decay_epochs`, along half a cosine to 0, or
    along a line to 0."""
    lr_decay_epochs: tuple[int, ...] = (18, 25)
    """With `schedule` step: the rate is multiplied by `lr_decay_factor` when each of these epochs
    begins."""
    lr_decay_factor: float = 0.1
    """With `schedule` step: what the learning rate is multiplied by at each decay."""
    warmup_epochs: float = 0.0
    """The learning rate rises linearly from 0 over this many first epochs; 0 is no warm-up."""
    start_from: str | None = None
    """Begin from these weights and not from fresh ones, here and in every retraining: a state_dict
    (.pt), .safetensors, or raygrad's own; a last layer for other classes is fresh."""
    augment: str = field(default="none", metadata=BASIC)
    """How training images are varied: none, or names joined by +, such as shift_flip+cutout+mixup.
    shift: moved by up to `augment_pixels`; shift_flip: that, and mirrored half of the time; flip;
    alternating_flip: half of the images mirrored in a pass over the data, the others in the next;
    random_resized_crop: a part of `crop_scale` or more, scaled up; cutout: a black square of
    `cutout_pixels`; mixup: blended with another by `mixup_alpha`. Out of the stored photograph,
    where data are streamed: photo_crop, the paper's for ImageNet (scaled to 8/7 of `image_size`, a
    random square of it, mirrored half of the time); photo_resized_crop, as random_resized_crop."""
    augment_pixels: int = 2
    """The farthest that an image is moved along each side, in pixels."""
    augment_fill: Literal["black", "reflect"] = "black"
    """What moves in where an image is moved: black, or the image itself, mirrored at its edge."""
    small_epochs: int = 0
    """In so many first epochs training images are scaled down to `small_size` pixels a side, which
    costs less by the square of it; validation, test and scores are of the whole size always. For
    networks that take images of any size."""
    small_size: int = 24
    """With `small_epochs`: pixels a side."""
    crop_scale: float = 0.08
    """The smallest part of an image that random_resized_crop and photo_resized_crop keep, as a
    share of its area."""
    cutout_pixels: int = 8
    """The side of cutout's square."""
    mixup_alpha: float = 0.2
    """Mixup's blend is drawn from Beta(alpha, alpha), once a step."""
    shuffle_buffer: int = 0
    """Examples that are mixed with each other, as runs of neighbours from many places of the data
    set; 0 mixes all. With a buffer, streamed images are read in long pieces, as large ones on S3
    want it; memory holds their encoded bytes. The order is the same wherever images come from."""
    patience: int = 10
    """Training stops after this many epochs without a better validation accuracy."""
    validation_steps: int = 1
    """At least this many steps lie between two validations: epochs of fewer steps, as small subsets
    have them, are validated every few epochs, which can be most of what they cost. A retraining
    is validated 20 times at least, or after each epoch where there are fewer, before patience may
    end it."""
    numerics: Literal["exact", "tf32", "bf16"] = "exact"
    """The arithmetic of training. exact: IEEE float32 and deterministic kernels on every device.
    tf32: products on GPUs are rounded to 10 bits of mantissa, several times faster there. bf16:
    forward and backward passes in bfloat16 by autocast with float32 weights; validation and test
    are as with tf32."""
    seed: int = 0
    """Seeds the initial weights, the order of the data and its augmentation."""
    dynamics: bool = False
    """Follow every training example through training and write scores of how it was learned:
    forgetting, aum, dyn_unc, dual, tdds, el2n_mean, mean_probability."""
    dynamics_epochs: int | None = None
    """With `dynamics`: dual, tdds and mean_probability look at so many first epochs alone, as the
    authors of DUAL do (30 of 200 on CIFAR, 60 on ImageNet); by default at all."""
    probe_size: int = 0
    """Random training examples whose gradient norms are measured after every epoch (the paper's
    Figures 2 and 5 show 512); 0 measures none."""
    bound_epochs: tuple[int, ...] = ()
    """After these epochs, counted from 1, the gradients' norms of random batches are set against
    the sums of their examples' norms (the paper's Figure 1)."""
    bound_batches: int = 50
    """Batches that are measured after each of `bound_epochs`."""
    keep_epochs: tuple[int, ...] = field(default=(), metadata=EXECUTION)
    """After these epochs, counted from 1, the weights are kept as train/<network>/epoch-<k>.pt:
    what `raygrad influence` sums over. The best epoch's are kept in any case."""
    num_workers: int = field(default=0, metadata=EXECUTION)
    """Ray Train workers, one a GPU; fewer are used, and it is said, where GPUs or CPUs are fewer.
    0 is as many as there are GPUs, or 2 on CPUs."""
    min_workers: int = field(default=0, metadata=EXECUTION)
    """Go on with as few workers as these where nodes are lost, and with more again where there
    are more; 0 waits for all `num_workers`."""
    cpus_per_worker: int = field(default=1, metadata=EXECUTION)
    """CPUs, and threads, of each worker."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=EXECUTION)
    """Where workers train; auto takes GPUs where the cluster has one, or may grow to one."""
    micro_batch: int = field(default=0, metadata=EXECUTION)
    """Examples that a worker's forward and backward passes take at a time; their gradients add up
    to those of its share of the batch. 0 is the whole share, halved where memory does not suffice.
    Batch normalisation goes by what a pass takes; nothing else but rounding does."""
    nodes: tuple[str, ...] = field(default=(), metadata=EXECUTION)
    """Labels of the nodes that workers may stand on, NAME=VALUE, as Ray's label
    selectors: raygrad=train, ray.io/market-type=!spot; by default on any."""
    channels_last: bool = field(default=False, metadata=EXECUTION)
    """Keep images and convolutions in the layout NHWC, which can be faster; rounding differs."""
    compile: bool = field(default=False, metadata=EXECUTION)
    """Compile the network with torch.compile, which needs a C++ compiler; rounding differs."""
    track: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = field(
        default=(), metadata=EXECUTION
    )
    """Who is told of training's epochs: tensorboard (under
    `<run>/train/<network>/tensorboard`), mlflow, wandb (Weights & Biases)."""
    data: Literal["auto", "memory", "disk", "stream"] = field(default="auto", metadata=EXECUTION)
    """Where images come from. memory: decoded once, held by each node. disk: decoded once a node,
    into files in `data.cache_dir`. stream: read from the shards and decoded every epoch, nothing
    kept. auto takes the first that fits, as `data.memory_bytes` and the disk say, and tells."""
    loaders: int | None = field(default=None, metadata=EXECUTION)
    """Processes beside each worker that read and decode streamed images, by default as many as it
    has threads; 0 for a thread of its own process."""
    save_interval_s: float = field(default=10.0, metadata=EXECUTION)
    """A killed training loses at most about this many seconds; 0 saves after every epoch."""

    def __post_init__(self) -> None:
        for name in (
            "epochs", "batch_size", "learning_rate", "patience", "validation_steps",
            "lr_decay_factor", "cpus_per_worker", "augment_pixels", "bound_batches",
            "rest_learning_rate", "last_layer_learning_rate", "small_size",
        ):  # fmt: skip
            positive(name, getattr(self, name))
        for name in (
            "save_interval_s", "weight_decay", "probe_size", "warmup_epochs", "min_workers",
            "micro_batch", "num_workers", "shuffle_buffer", "small_epochs",
        ):  # fmt: skip
            value = getattr(self, name)
            require(value >= 0, f"{name} must be at least 0", value)
        first = self.dynamics_epochs
        require(first is None or first >= 2, "dynamics_epochs must be at least 2", first)
        for name in ("momentum", "rest_momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be in [0, 1)", value)
        for name in ("lr_decay_epochs", "bound_epochs", "keep_epochs"):
            epochs = getattr(self, name)
            require(list(epochs) == sorted(set(epochs)), f"{name} must increase", epochs)
        for name in ("bound_epochs", "keep_epochs"):
            epochs = getattr(self, name)
            require(min(epochs, default=1) > 0, f"{name} must be counted from 1", epochs)
        require(
            self.loaders is None or self.loaders >= 0, "loaders must be at least 0", self.loaders
        )
        self._check_augment()
        check_nodes(self.nodes)
        for name, known in (
            ("optimizer", ("sgd", "adamw", "muon")),
            ("schedule", ("step", "cosine", "linear")),
            ("augment_fill", ("black", "reflect")),
            ("numerics", ("exact", "tf32", "bf16")),
            ("device", ("auto", "cpu", "cuda")),
            ("data", DATA_WAYS),
        ):
            require(getattr(self, name) in known, f"{name} must be of {known}", getattr(self, name))

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names that `augment` joins; none for none."""
        return () if self.augment == "none" else tuple(self.augment.split("+"))

    @property
    def photo_augmentation(self) -> str | None:
        """The one of `augment` that starts from the stored photograph; None for none."""
        return next((name for name in self.augmentations if name in PHOTO_AUGMENTATIONS), None)

    def check_photo(self, data: str) -> None:
        """Raises ConfigError where images from `data` are asked to be cut out of photographs."""
        photo = self.photo_augmentation
        require(
            photo is None or data in ("auto", "stream"),
            f"augment {photo} cuts images out of their stored photographs, so that data must be "
            "stream",
            data,
            "Leave data out, or name another --train.augment, such as shift_flip.",
        )

    def _check_augment(self) -> None:
        names = self.augmentations
        for name in names:
            require(name in AUGMENTATIONS, f"augment must be none or of {AUGMENTATIONS}", name)
        require(len(set(names)) == len(names), "augment must not repeat a name", self.augment)
        moves = {"shift", "shift_flip", "random_resized_crop", *PHOTO_AUGMENTATIONS} & set(names)
        require(len(moves) <= 1, "augment must move images in one way", self.augment)
        mirrors = {"shift_flip", "flip", "alternating_flip", "photo_crop"} & set(names)
        require(len(mirrors) <= 1, "augment must mirror once", self.augment)
        require(
            not (self.dynamics and "mixup" in names),
            "dynamics must watch single images",
            self.augment,
            "Leave mixup, or --no-dynamics.",
        )
        self.check_photo(self.data)
        fraction("crop_scale", self.crop_scale)
        positive("cutout_pixels", self.cutout_pixels)
        positive("mixup_alpha", self.mixup_alpha)
