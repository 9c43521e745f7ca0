"""Features of a network that scored: found beside its scores, or made when that is asked."""

import logging
from collections.abc import Sequence

from raygrad.config import StudyConfig
from raygrad.errors import ConfigError
from raygrad.runs import score_table
from raygrad.runs.feature_draws import vectors_there
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import read_json

log = logging.getLogger("raygrad")

_SAME = ("checkpoint", "preprocess", "classes")
"""What features and scores must have in common to be of one network, where both say it."""


def features_of(
    stored: StudyConfig, name: str, scores_url: str, vectors: Sequence[str], method: str, make: bool
) -> str:
    """Returns the folder of a table whose side table has the vectors of a network.

    Args:
        stored: The configuration of the run that the scores come from.
        name: The name of the network's folders.
        scores_url: The folder of the scores that are drawn by.
        vectors: What is read, of `score_table.VECTORS`.
        method: The method that reads them, for what is said.
        make: Make them where there are none.

    Raises:
        ConfigError: There are none, or they are of other weights than the scores.
    """
    layout = RunLayout(stored.run)
    trained = name.removesuffix("-dynamics") if not _is_scored(layout, name) else name
    here = [layout.features(trained), layout.scores(trained)]
    found = {url: there for url in here if (there := vectors_there(url)) is not None}
    for url, there in found.items():
        if set(vectors) <= set(there) and _covers(url, scores_url):
            _refuse_other(url, scores_url)
            return url
    if make:
        from raygrad.pipeline.making_features import make_features  # with all of Ray Data

        log.info("features: %s reads %s, so they are made", method, " and ".join(vectors))
        url = make_features(stored, trained)
        if not set(vectors) <= set(vectors_there(url) or ()):
            raise ConfigError(
                f"{method} needs errors, of a network whose last linear layer makes its logits, "
                f"got {trained!r}, which goes on after that layer. Take a method that reads "
                "features alone: raygrad select --list."
            )
        _refuse_other(url, scores_url)
        return url
    got = "features alone" if found else "none"
    raise ConfigError(
        f"{method} needs {' and '.join(vectors)} of the images, got {got} of network {trained!r} "
        f"in {layout.url}. Make them in a pass over the images: add --make-features; or score "
        "with --features."
    )


def _is_scored(layout: RunLayout, name: str) -> bool:
    return files.exists(layout.marker(f"score-{name}"))


def _covers(url: str, scores_url: str) -> bool:
    """Tells whether a table has all shards that are scored; some may have come later."""
    has, needs = (read_json(files.join(one, score_table.MANIFEST)) for one in (url, scores_url))
    return set(needs["shards"]) <= set(has["shards"])


def _refuse_other(url: str, scores_url: str) -> None:
    """Raises ConfigError where features and scores are of other weights or other images."""
    of, scores = (
        read_json(files.join(one, score_table.MANIFEST))["provenance"] for one in (url, scores_url)
    )
    differ = [name for name in _SAME if name in of and name in scores and of[name] != scores[name]]
    if differ:
        raise ConfigError(
            f"features and scores must be of one network and its images, got another "
            f"{', '.join(differ)} in {url} than in {scores_url}. Do the later again (--redo)."
        )
