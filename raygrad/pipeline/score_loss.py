"""Which loss is scored, and what a score table says of it and of the parameters it is over."""

import logging
from collections.abc import Sequence

from raygrad.config import ScoreConfig
from raygrad.errors import ConfigError
from raygrad.scoring.columns import GRAD_COLUMNS, asks_for
from raygrad.storage.manifest import digest
from raygrad.training.losses import DEFAULT_LOSS, build_loss
from raygrad.training.outside import NetworkSource, recorded_loss

log = logging.getLogger("raygrad")


def score_loss(config: ScoreConfig, sources: Sequence[NetworkSource]) -> str:
    """Returns the loss whose gradients are scored: the one asked for, or the networks' own.

    Args:
        config: `loss` is used.
        sources: The networks, one a checkpoint.

    Raises:
        ConfigError: The loss is unknown, or the networks were trained with several.
    """
    urls = [source.checkpoint_url for source in sources if source.checkpoint_url is not None]
    found = {url: recorded_loss(url) for url in urls}
    trained = sorted({loss for loss in found.values() if loss is not None})
    if config.loss is not None:
        build_loss(config.loss)
        if any(loss != config.loss for loss in trained):
            log.warning(
                "score: by the loss %s, though trained with %s", config.loss, ", ".join(trained)
            )
        return config.loss
    if len(trained) > 1:
        raise ConfigError(
            f"networks that are scored together must have one loss, got {', '.join(trained)}. "
            "Give --loss, or score them into several runs."
        )
    return trained[0] if trained else DEFAULT_LOSS


def loss_provenance(
    config: ScoreConfig, loss: str, sources: Sequence[NetworkSource]
) -> dict[str, str]:
    """Returns what a table's provenance says of the loss, and of what is trainable where asked.

    Tables of cross-entropy say nothing, as those of before it could be chosen.
    """
    said = {} if loss == DEFAULT_LOSS else {"loss": loss}
    if asks_for([column for column in config.columns if column in GRAD_COLUMNS], "trainable"):
        parameters = sources[0].build().named_parameters()
        said["trainable"] = digest([name for name, p in parameters if p.requires_grad])
    return said
