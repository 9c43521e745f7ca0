"""What a scoring actor is told, and what it tells of a shard."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raygrad.data.decode import decode_image
from raygrad.data.reading import EncodedExample
from raygrad.data.transforms import CropTransform
from raygrad.engine.placement import CPUS_PER_ACTOR
from raygrad.training.losses import DEFAULT_LOSS
from raygrad.training.outside import NetworkSource
from raygrad.training.preprocess import Normalize

SPLIT = "train"
"""The split that is scored."""


@dataclass(frozen=True)
class Preprocess:
    """From an encoded image to what the networks take; part of the scores' provenance."""

    channels: int
    """Colour channels that images are decoded to."""
    transform: CropTransform | None
    """Scales and crops; None leaves images as they are."""
    normalize: Normalize
    """From uint8 to floats."""

    def decode(self, example: EncodedExample) -> NDArray[np.uint8]:
        """Returns the pixels of an example, uint8 `[H, W, C]`.

        Raises:
            DataError: The image cannot be used.
        """
        if self.transform is not None:
            return self.transform.score(example.image, channels=self.channels)
        return decode_image(example.image, channels=self.channels)


@dataclass(frozen=True)
class ScoreTask:
    """All that an actor needs to score a shard; paths, not weights, so that any node can."""

    data_url: str
    """The folder of the index."""
    out_url: str
    """The folder of the score table."""
    networks: tuple[NetworkSource, ...]
    """The networks, one a checkpoint, of one architecture."""
    digests: tuple[str, ...]
    """The hash of each one's weights: an actor that finds others refuses to score."""
    preprocess: Preprocess
    """How images are prepared."""
    columns: tuple[str, ...]
    """The scores to compute."""
    provenance: dict[str, str] = field(default_factory=dict)
    """What the scores come from; it travels with every part."""
    loss: str = DEFAULT_LOSS
    """The loss whose gradients are scored."""
    features: bool = False
    """Also write the penultimate features, float16, beside the table."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the networks run."""
    actors_per_gpu: int = 1
    """Actors that share a GPU."""
    numerics: str = "exact"
    """How exactly the networks compute: exact, tf32 or bf16."""
    channels_last: bool = False
    """Use the memory format NHWC."""
    batch_size: int = 0
    """Examples a pass; 0 finds it within the memory there is."""
    decode_threads: int = 1
    """Threads of an actor that decode."""
    cpus: float = CPUS_PER_ACTOR
    """CPUs that an actor takes."""
    max_reject_share: float = 1.0
    """The share of examples that may be undecodable, in [0, 1]."""
    shard_timeout_s: float = 600.0
    """Seconds without progress after which an actor ends itself."""


Kind = Literal["done", "found", "failed", "final", "fatal", "returned", "away"]
ENDING = ("fatal", "away")
"""Kinds that end the job."""


@dataclass(frozen=True)
class ShardStatus:
    """What became of a shard, as one row of the Ray Data job."""

    shard: str
    """The shard's name."""
    kind: Kind
    """done: scored now; found: its part was there; failed: try again elsewhere; final: no try
    will help; fatal: no other shard will fare better, so the job ends; returned: not tried, as the
    place is set aside; away: storage was waited for in vain, so the job ends."""
    used: int = 0
    """Examples that have scores."""
    time_s: float = 0.0
    """Seconds on the actor."""
    rejects: str = "[]"
    """Examples that could not be used, JSON."""
    not_finite: str = "{}"
    """How many scores of a column are NaN or infinite, JSON."""
    error: str = ""
    """Why it was not scored."""
    device: str = ""
    """The name of the device that computed it."""


def as_batch(statuses: Sequence[ShardStatus]) -> dict[str, Any]:
    """Returns statuses as a batch, a row each."""
    names = [field.name for field in fields(ShardStatus)]
    return {name: np.array([getattr(one, name) for one in statuses]) for name in names}
