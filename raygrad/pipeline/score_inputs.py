"""What the stage score is given: networks, preprocessing, and what its table says it came from."""

from dataclasses import dataclass

import torch

import raygrad
from raygrad.config import ScoreConfig, StudyConfig
from raygrad.config_values import identity
from raygrad.data.shards import DATASET_FILE
from raygrad.data.transforms import CropTransform
from raygrad.engine.score.task import Preprocess
from raygrad.errors import ConfigError
from raygrad.pipeline.noticing import code_of
from raygrad.pipeline.score_loss import loss_provenance, score_loss
from raygrad.pipeline.stages import facts_of, transform_of
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.losses import DEFAULT_LOSS
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource, weights_digest
from raygrad.training.preprocess import Normalize

_VERSIONS = ("raygrad", "torch", "code")


@dataclass(frozen=True)
class ScoreInputs:
    """The inputs of the stage score."""

    sources: tuple[NetworkSource, ...]
    """The networks, one a checkpoint."""
    preprocess: Preprocess
    """How images are prepared."""
    provenance: dict[str, str]
    """What the scores come from, as every part of the table says it."""
    own_digests: tuple[str, ...] = ()
    """The hash of each network's weights, where it had to be found already."""
    loss: str = DEFAULT_LOSS
    """The loss whose gradients are scored."""

    @property
    def digest(self) -> str:
        """What the stage's marker holds.

        What is complete stays so when a library is newer; only parts of two versions do not mix.
        The marker keeps the user's own code beside it.
        """
        return digest({k: v for k, v in self.provenance.items() if k not in _VERSIONS})

    def weights_digests(self) -> tuple[str, ...]:
        """Returns the hash of each network's weights; an actor that finds others refuses."""
        return self.own_digests or tuple(weights_digest(one.build()) for one in self.sources)


def score_inputs(config: StudyConfig, name: str | None = None) -> ScoreInputs:
    """Returns what the stage score of a prepared run, and of a trained network, is given.

    Args:
        config: The study.
        name: The name of the trained network's folders, where it is not that of the network.

    Raises:
        ConfigError: The run is not that far, or the network, its weights and the data do not fit.
    """
    layout, network = RunLayout(config.run), name or config.scored_network
    facts = read_json(files.join(layout.data, DATASET_FILE))
    if config.score.is_own:
        sources, preprocess = own_network(config.score, config.scored_network, facts)
        weights = own_digests = tuple(weights_digest(source.build()) for source in sources)
    else:
        weights, own_digests = (facts_of(layout, f"train-{network}")["digest"],), ()
        sources, preprocess = _trained(layout.checkpoint(network), facts)
    loss = score_loss(config.score, sources)
    provenance = {
        "network": network,
        "checkpoint": ",".join(weights),
        "preprocess": digest(preprocess),
        "classes": _class_numbering(facts["classes"]),
        "columns": ",".join(config.score.columns),
        "dtype": identity(config.score)["dtype"],
        "features": str(config.score.features),
        "raygrad": raygrad.__version__,
        # A plain string: whatever unpickles torch's own kind of one has to import torch, as Ray
        # Data's statistics actor would for nothing.
        "torch": str(torch.__version__),
        **loss_provenance(config.score, loss, sources),
    }
    if code := code_of(config.scored_network, loss):
        provenance["code"] = ",".join(code.values())
    return ScoreInputs(sources, preprocess, provenance, own_digests, loss)


def _trained(checkpoint_url: str, facts: dict) -> tuple[tuple[NetworkSource, ...], Preprocess]:
    """Returns the run's trained network, which sees images as they are stored."""
    checkpoint = load_checkpoint(checkpoint_url)
    source = NetworkSource(checkpoint.network, checkpoint.spec, checkpoint_url)
    return (source,), Preprocess(facts["channels"], transform_of(facts), checkpoint.normalize)


def own_network(
    config: ScoreConfig, network: str, facts: dict
) -> tuple[tuple[NetworkSource, ...], Preprocess]:
    """Returns the user's network once a checkpoint, and the preprocessing of the flags.

    Raises:
        ConfigError: Labels or channels are more than the network is for.
    """
    channels, num_labels = facts["channels"], facts["num_classes"]
    num_classes = config.num_classes or num_labels
    if num_labels > num_classes:
        raise ConfigError(
            f"num_classes must count every label, got {num_classes} for labels up to "
            f"{num_labels - 1}. Give the network's --num-classes, or other --labels."
        )
    if len(config.mean) != channels:
        raise ConfigError(
            f"mean and std must have a value for each of {channels} channels, "
            f"got {len(config.mean)}. Give --mean and --std."
        )
    size = config.image_size
    transform = CropTransform(config.scaled_to, size, config.keep_aspect)
    spec = ImageSpec(channels, size, size, num_classes)
    urls: list[str | None] = [files.absolute(url) for url in config.checkpoint]
    sources = tuple(
        NetworkSource(network, spec, url, config.weights_seed) for url in urls or [None]
    )
    return sources, Preprocess(channels, transform, Normalize(config.mean, config.std))


def check_weights(config: ScoreConfig) -> None:
    """Checks that a network of the user's choice has weights, or is to have none.

    Raises:
        ConfigError: There is a checkpoint without its network, or no checkpoint and no word that
            fresh weights are meant.
    """
    if config.checkpoint and config.network is None:
        raise ConfigError("checkpoint must come with its network, got none. Give --network.")
    if config.network is None or config.checkpoint:
        if config.fresh_weights:
            raise ConfigError(
                "fresh_weights must be of a network without a checkpoint, got "
                f"{'a checkpoint' if config.checkpoint else 'the network that the run trains'}. "
                "Give --network alone, or leave --fresh-weights."
            )
        return
    if not config.fresh_weights:
        raise ConfigError(
            f"a network that is scored must have weights, got no checkpoint for "
            f"{config.network!r}. Give --checkpoint, or --fresh-weights to score random weights."
        )


def _class_numbering(classes: list[str]) -> str:
    """Returns what labels' numbers mean; plain numbers mean themselves, however many there are."""
    plain = classes == [str(number) for number in range(len(classes))]
    return "numbers" if plain else digest(classes)
