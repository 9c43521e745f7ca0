"""The section score: which scores are computed, with which network, on what."""

from dataclasses import dataclass, field
from typing import Literal

from raygrad.config.declaring import ACTED_ON, BASIC, EXECUTION, positive, require
from raygrad.config.nodes import check_nodes

IMAGENET_SIZE, IMAGENET_RESIZE = 224, 256


@dataclass(frozen=True)
class ScoreConfig:
    """Which scores are computed for every training example, with which network, on what."""

    columns: tuple[str, ...] = field(
        default=("grad_l2_last_layer_weights", "grad_l2_weights", "loss"), metadata=BASIC
    )
    """Score columns: grad_{l1,l2,linf}_{all,biases,weights,last_layer_weights,trainable}, loss,
    el2n, margin, entropy, least_confidence; grand is the mean of grad_l2_all over checkpoints."""
    loss: str | None = None
    """The loss whose gradient is scored, as `train.loss` is named; by default the one that the
    network was trained with, as its checkpoint says, and cross_entropy where nothing says it."""
    network: str | None = field(default=None, metadata=ACTED_ON | BASIC)
    """A network of your choice by name, or module:callable; by default the run's trained one."""
    checkpoint: tuple[str, ...] = field(default=(), metadata=BASIC)
    """Its weights: a state_dict (.pt), .safetensors, or raygrad's own; local or s3://. Several are
    scored in one pass, a column each and their mean."""
    fresh_weights: bool = field(default=False, metadata=EXECUTION)
    """Score your network with fresh random weights, drawn from `weights_seed`, in place of a
    checkpoint: such scores know nothing of the data."""
    num_classes: int | None = field(default=None, metadata=BASIC)
    """Classes that your network tells apart; by default as many as the labels count."""
    weights_seed: int = 0
    """Seeds fresh weights."""
    image_size: int = field(default=224, metadata=BASIC)
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
    numerics: Literal["exact", "tf32", "bf16"] = "exact"
    """exact: IEEE float32 and deterministic kernels on every device. tf32: products on GPUs are
    rounded to 10 bits of mantissa, faster. bf16: the passes run under autocast, rounded to 8 bits;
    rank correlation of scores with float32's was 0.9999 on trained networks, and 92 to 100% of the
    hardest 1% the same."""
    features: bool = False
    """Also write to scores/<network>/features/, for methods of selection that read them, the
    penultimate features, float16, and the error at the logits (softmax minus one-hot), float32: 2
    bytes a feature and 4 a class for each image."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=EXECUTION)
    """Where networks run; auto takes GPUs where the cluster has one, or may grow to one."""
    nodes: tuple[str, ...] = field(default=(), metadata=EXECUTION)
    """Labels of the nodes that actors may stand on, NAME=VALUE, as Ray's label
    selectors: raygrad=score, ray.io/market-type=spot; by default on any."""
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
    """Threads of an actor that decode; 0 is one on a CPU; beside a GPU, its share of the CPUs of
    the GPU node that has fewest for each, 8 at most."""
    shard_timeout_s: float = field(default=600.0, metadata=EXECUTION)
    """An actor without progress for so long is ended, and its shard tried elsewhere."""
    price_per_hour: float = field(default=0.0, metadata=EXECUTION)
    """What an hour of a CPU core, or of a GPU on cuda, costs; gives the cost a million examples."""

    def __post_init__(self) -> None:
        numerics = ("exact", "tf32", "bf16")
        require(self.numerics in numerics, f"numerics must be of {numerics}", self.numerics)
        require(len(self.columns) > 0, "columns must name at least one score", self.columns)
        for name in ("columns", "checkpoint"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{name} must not repeat a name", values)
        check_nodes(self.nodes)
        for name in ("image_size", "actors_per_gpu", "min_actors", "shard_timeout_s"):
            positive(name, getattr(self, name))
        for name in ("batch_size", "max_actors", "decode_threads", "price_per_hour"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0", getattr(self, name))
        most = self.max_actors or self.min_actors
        require(self.min_actors <= most, "min_actors must not exceed max_actors", self.min_actors)
        resize = self.resize if self.resize is not None else self.image_size
        require(resize >= self.image_size, "resize must be at least image_size", self.resize)
        same = len(self.mean) == len(self.std)
        require(same, "mean and std must have a value a channel each", (self.mean, self.std))
        require(min(self.std, default=0) > 0, "std must be positive", self.std)

    @property
    def scaled_to(self) -> int:
        """What images are scaled to before the centre is cut out, in pixels."""
        default = IMAGENET_RESIZE if self.image_size == IMAGENET_SIZE else self.image_size
        return self.resize or default

    @property
    def is_own(self) -> bool:
        """Whether a network of the user's choice is scored, not the run's trained one."""
        return self.network is not None or bool(self.checkpoint)
