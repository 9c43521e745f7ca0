"""The stage select: subsets for every method, keep_fraction and seed."""

import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raygrad.config import SelectConfig, StudyConfig
from raygrad.errors import ConfigError
from raygrad.pipeline.feature_tables import features_of
from raygrad.pipeline.replicates import Replicate, replicates
from raygrad.pipeline.settling import set_aside_redrawn
from raygrad.pipeline.stages import facts_of
from raygrad.pipeline.stored import stored_config
from raygrad.runs import score_table
from raygrad.runs.feature_draws import draw_subset_by_features
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout, folder_name
from raygrad.runs.subsets import draw_subset, read_subset
from raygrad.selection.named import check_method, parsed_options, vectors_of
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, read_marker
from raygrad.training.trial import replicate_seed

log = logging.getLogger("raygrad")

WEIGHTS = "inverse chance given the next arrival"
"""What gradient_cdf's weights are; files that do not say so hold those of draws with replacement,
and are written again with the same rows."""


@dataclass(frozen=True)
class ScoreSource:
    """The score table that subsets are drawn by."""

    url: str
    """The folder of the table."""
    network: str
    """The network that was scored with."""
    digest: str
    """Hash of the table's provenance."""
    folders: tuple[str, ...]
    """The folders below subsets/ of what it draws: none for the run's own network and column."""
    run: str | None
    """The name in results of another run that was scored; None for the run's own scores."""
    column: str
    """The column of the table that methods of one score read."""
    replicate: Replicate
    """Which of the study's scoring networks it is."""
    stored: StudyConfig
    """The configuration of the run that the scores come from."""

    def features(self, vectors: tuple[str, ...], method: str, make: bool) -> str:
        """Returns where the vectors of the network are that scored; see `features_of`."""
        name = self.replicate.name
        return features_of(self.stored, name, self.url, vectors, method, make)


def score_source(config: StudyConfig) -> ScoreSource:
    """Returns where the scores of the run's own seed come from, whatever the other seeds are.

    Raises:
        ConfigError: The other run is not there, or its scores are not complete.
    """
    alone = dataclasses.replace(config.select, score_seeds=())
    return score_sources(dataclasses.replace(config, select=alone))[0]


def score_sources(config: StudyConfig) -> list[ScoreSource]:
    """Returns the table of every scoring network: the run's own, another one's, or another run's.

    Raises:
        ConfigError: The other run is not there, or its scores are not complete.
    """
    own = config.select.score_run is None
    layout = RunLayout(config.run if own else str(config.select.score_run))
    stored = config if own else stored_config(layout.url)
    if stored is None:
        raise ConfigError(
            f"score_run must be a run folder, got {config.select.score_run!r} without a "
            "config.json. Check the path."
        )
    network = config.select.score_network or stored.scored_network
    if not config.select.fresh_scores:
        _refuse_fresh(layout, network, stored)
    bound = stored_config(config.run) or config
    sources = []
    for one in replicates(config, stored, network):
        found = _table_digest(layout, one.name)
        is_own = own and one.number is None and network == config.scored_network
        mark = "" if one.checkpoint is None else f"@{one.checkpoint}"
        folders = [] if is_own else [f"{folder_name(one.name)}{mark}-{found[:8]}"]
        column = config.select.score_column
        if column != bound.select.score_column:
            folders.append(column)
        run = None if own else f"{layout.url.rstrip('/').rsplit('/', 1)[-1]}-{found[:8]}"
        url = layout.scores(one.name)
        sources.append(
            ScoreSource(url, network, found, tuple(folders), run, f"{column}{mark}", one, stored)
        )
    return sources


def _refuse_fresh(layout: RunLayout, network: str, stored: StudyConfig) -> None:
    """Raises ConfigError where the scores are of fresh weights.

    Tables of before this was recorded are judged by the configuration that their run has.
    """
    marker = read_marker(layout.marker(f"score-{network}"))
    if marker is None:
        return
    score = stored.score
    unrecorded = score.network == network and not score.checkpoint
    if marker.get("fresh_weights", unrecorded):
        raise ConfigError(
            f"subsets must be drawn by scores of a trained network, got those of fresh random "
            f"weights of {network!r}, in {layout.url}. Score with --checkpoint, or give "
            "--fresh-scores to draw by them all the same."
        )


def _table_digest(layout: RunLayout, network: str) -> str:
    """Returns the digest of a score table; training writes `<network>-dynamics` itself."""
    trained = network.removesuffix("-dynamics")
    by_training = trained != network and not files.exists(layout.marker(f"score-{network}"))
    stage = f"train-{trained}" if by_training else f"score-{network}"
    found = str(facts_of(layout, stage)["digest"])
    manifest = files.join(layout.scores(network), score_table.MANIFEST)
    if not by_training or not files.exists(manifest):
        return found
    # Epochs that were looked at alone are part of the scores and not of the weights. Tables of
    # before that was written down, and of all epochs, go by the weights.
    epochs = read_json(manifest)["provenance"].get("dynamics_epochs")
    return found if epochs is None else digest({"weights": found, "dynamics_epochs": epochs})


def subset_url(config: StudyConfig, source: ScoreSource, cell: tuple[str, float, int]) -> str:
    """Returns the file of a subset; those drawn by other scores stand in a folder of their own."""
    folder, name = RunLayout(config.run).subset(*cell).rsplit("/", 1)
    return files.join(folder, *source.folders, name)


def subset_urls(config: StudyConfig) -> list[str]:
    """Returns the file of every subset that the configuration asks for."""
    cells = grid(config.select)
    return [subset_url(config, of, cell) for of in score_sources(config) for cell in cells]


def select(config: StudyConfig, redo: bool = False) -> None:
    """Draws a subset for every method, keep_fraction and seed that has none yet.

    Args:
        config: The study.
        redo: Draw again subsets that were drawn otherwise, and set their retrainings aside.

    Raises:
        ConfigError: A subset was drawn otherwise.
    """
    if not draw_missing(config, redo):
        log.info("select: complete, skipped")


def draw_missing(config: StudyConfig, redo: bool = False) -> int:
    """Does the stage select, without a word where it is complete; returns how many it drew."""
    draws = [
        _Draw(config.select, source, cell)
        for source in score_sources(config)
        for cell in grid(config.select)
    ]
    missing = [
        draw
        for draw in draws
        if not _is_there(draw, subset_url(config, draw.source, draw.cell), redo)
    ]
    if redo:
        redrawn = [d for d in missing if files.exists(subset_url(config, d.source, d.cell))]
        set_aside_redrawn(RunLayout(config.run), {draw.series for draw in redrawn})
    if missing:
        counts: dict[float, int] = {}
        with recorded(RunLayout(config.run).journal, "select"):
            tables = {draw.source.url for draw in missing if not draw.vectors}
            rows = {url: score_table.row_files(url) for url in tables}
            for draw in missing:
                url = subset_url(config, draw.source, draw.cell)
                counts[draw.cell[1]] = draw.to(url, rows.get(draw.source.url))
        for keep_fraction, count in counts.items():
            if keep_fraction * count < 1:
                log.warning(
                    "select: keep_fraction %g of %s examples is less than one; one is kept",
                    keep_fraction,
                    f"{count:,}",
                )
        log.info("select: %d subsets drawn, %d were there", len(missing), len(draws) - len(missing))
    return len(missing)


def _is_there(draw: "_Draw", url: str, redo: bool) -> bool:
    try:
        return draw.is_at(url)
    except ConfigError as error:
        if not redo:
            raise
        log.warning("select: %s is drawn again: %s", url, str(error).partition(" Do ")[0])
        return False


@dataclass(frozen=True)
class _Draw:
    """The draw of one subset."""

    config: SelectConfig
    source: ScoreSource
    cell: tuple[str, float, int]
    """Method, keep_fraction and seed."""

    @property
    def series(self) -> tuple[str, float, str, str, str | None]:
        """What its retrainings share with those of other seeds, as of `set_aside_redrawn`."""
        by = self.source.network, self.config.score_column, self.source.run
        return (*self.cell[:2], *by)

    @property
    def shared(self) -> dict[str, Any]:
        """What all subsets of the scoring network come from."""
        found: dict[str, Any] = {
            "scores": self.source.digest,
            "score_network": self.source.network,
            "score_column": self.config.score_column,
            "class_balanced": self.config.class_balanced,
            "missing": self.config.missing,
            "options": self._own_options or None,
        }
        if self.source.replicate.number is not None:
            found |= {"score_seed": self.source.replicate.seed, "draw_seed": self.draw_seed}
        return found

    @property
    def draw_seed(self) -> int:
        """What seeds the draw: draws by two scoring networks have nothing in common."""
        return replicate_seed("draw", self.cell[2], self.source.replicate.number)

    @property
    def options(self) -> dict[str, Any]:
        """What the method is told besides how much to keep."""
        own = self._own_options
        if self.cell[0] == "non_extreme_max_gradient":
            return {"drop_fraction": self.config.drop_fraction, **own}
        return {"drop_schedule": self.config.ccs_drop, **own} if self.cell[0] == "ccs" else own

    @property
    def _own_options(self) -> dict[str, Any]:
        """What `--options` gives the method."""
        return parsed_options(self.config.options).get(self.cell[0], {})

    @property
    def vectors(self) -> tuple[str, ...]:
        """What the method reads of a side table."""
        return vectors_of(check_method(self.cell[0], **self.options))

    @property
    def said(self) -> dict[str, Any]:
        """What files of before this was told do not say of their draw."""
        return {**self.options, **({"weights": WEIGHTS} if self.cell[0] == "gradient_cdf" else {})}

    @property
    def origin(self) -> dict[str, Any]:
        """What the subset comes from."""
        return {**self.shared, **self.said}

    def to(self, url: str, row_files: Sequence[str] | None = None) -> int:
        """Draws the subset to a file; returns how many examples it was drawn from."""
        balanced = self.config.class_balanced
        how: dict[str, Any] = {
            "score_column": self.source.column,
            "class_balanced": False if balanced == "no" else balanced,
            "missing": self.config.missing,
            **self.options,
        }
        given = (*self.cell, self.origin, self.draw_seed)
        if self.vectors:
            features = self.source.features(self.vectors, self.cell[0], self.config.make_features)
            return draw_subset_by_features(self.source.url, features, url, *given, **how)
        return draw_subset(self.source.url, url, *given, row_files=row_files, **how)

    def is_at(self, url: str) -> bool:
        """Tells whether the subset is there.

        Raises:
            ConfigError: Another subset is.
        """
        if not files.exists(url):
            return False
        table, found = read_subset(url)
        if self.said and not self.said.keys() & found.keys():
            # Older files do not say what their method was told, or have other weights.
            gives = self._gives(table)
            found |= self.said if gives else dict.fromkeys(self.said, "another")
            if gives:
                self.to(url)
        wanted = self.origin.items()
        differ = [f"{k} {found.get(k)!r}, now {v!r}" for k, v in wanted if found.get(k) != v]
        if differ:
            raise ConfigError(
                f"subset {url} must have been drawn as is asked for, got one drawn by "
                f"{'; '.join(differ)}. Do it again (--redo), or name another --run."
            )
        return True

    def _gives(self, table: pa.Table) -> bool:
        """Tells whether the draw gives the rows of a table."""
        with tempfile.TemporaryDirectory(prefix="raygrad-subset-") as folder:
            url = files.join(folder, "again.parquet")
            self.to(url)
            return read_subset(url)[0]["key"].equals(table["key"])


def grid(config: SelectConfig) -> list[tuple[str, float, int]]:
    """Returns method, keep_fraction and seed of every subset that the configuration asks for.

    Keeping everything is the same subset by any method: it is drawn once a seed, as `random`.
    non_extreme_max_gradient has no subset larger than what it does not drop; such fractions are
    left out, and it is said.
    """
    cells = []
    for method, keep_fraction in itertools.product(config.methods, config.keep_fractions):
        if keep_fraction == 1.0:
            continue
        if method == "non_extreme_max_gradient" and keep_fraction > 1 - config.drop_fraction:
            log.warning("select: %s cannot keep %g; left out", method, keep_fraction)
            continue
        cells += [(method, keep_fraction, seed) for seed in config.seeds]
    if 1.0 in config.keep_fractions:
        cells += [("random", 1.0, seed) for seed in config.seeds]
    return cells
