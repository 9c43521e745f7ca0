"""The stage select: subsets for every method, keep_fraction and seed."""

import itertools
import logging
import tempfile
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raygrad.config import SelectConfig, StudyConfig
from raygrad.errors import ConfigError
from raygrad.pipeline.binding import stored_config
from raygrad.pipeline.stages import facts_of
from raygrad.runs.journal import recorded
from raygrad.runs.layout import RunLayout, folder_name
from raygrad.runs.subsets import draw_subset, read_subset
from raygrad.storage import files

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


def score_source(config: StudyConfig) -> ScoreSource:
    """Returns where the scores come from: the run's own, another network's, or another run's.

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
    network = config.select.score_network or stored.train.network
    found = _table_digest(layout, network)
    is_own = own and network == config.train.network
    folders = [] if is_own else [f"{folder_name(network)}-{found[:8]}"]
    bound = stored_config(config.run) or config
    if config.select.score_column != bound.select.score_column:
        folders.append(config.select.score_column)
    run = None if own else f"{layout.url.rstrip('/').rsplit('/', 1)[-1]}-{found[:8]}"
    return ScoreSource(layout.scores(network), network, found, tuple(folders), run)


def _table_digest(layout: RunLayout, network: str) -> str:
    """Returns the digest of a score table; training writes `<network>-dynamics` itself."""
    trained = network.removesuffix("-dynamics")
    by_training = trained != network and not files.exists(layout.marker(f"score-{network}"))
    stage = f"train-{trained}" if by_training else f"score-{network}"
    return str(facts_of(layout, stage)["digest"])


def subset_url(config: StudyConfig, source: ScoreSource, cell: tuple[str, float, int]) -> str:
    """Returns the file of a subset; those drawn by other scores stand in a folder of their own."""
    folder, name = RunLayout(config.run).subset(*cell).rsplit("/", 1)
    return files.join(folder, *source.folders, name)


def subset_urls(config: StudyConfig) -> list[str]:
    """Returns the file of every subset that the configuration asks for."""
    source = score_source(config)
    return [subset_url(config, source, cell) for cell in grid(config.select)]


def select(config: StudyConfig) -> None:
    """Draws a subset for every method, keep_fraction and seed that has none yet."""
    if not draw_missing(config):
        log.info("select: complete, skipped")


def draw_missing(config: StudyConfig) -> int:
    """Does the stage select, without a word where it is complete; returns how many it drew."""
    source = score_source(config)
    origin = {
        "scores": source.digest,
        "score_network": source.network,
        "score_column": config.select.score_column,
        "class_balanced": config.select.class_balanced,
        "missing": config.select.missing,
    }
    cells = grid(config.select)
    draws = [_Draw(config.select, source, cell, origin) for cell in cells]
    missing = [
        draw
        for draw, cell in zip(draws, cells, strict=True)
        if not draw.is_at(subset_url(config, source, cell))
    ]
    if missing:
        with recorded(RunLayout(config.run).journal, "select"):
            for draw in missing:
                draw.to(subset_url(config, source, draw.cell))
        log.info("select: %d subsets drawn, %d were there", len(missing), len(cells) - len(missing))
    return len(missing)


@dataclass(frozen=True)
class _Draw:
    """The draw of one subset."""

    config: SelectConfig
    source: ScoreSource
    cell: tuple[str, float, int]
    """Method, keep_fraction and seed."""
    shared: dict[str, Any]
    """What subsets of the configuration come from."""

    @property
    def options(self) -> dict[str, Any]:
        """What the method is told besides how much to keep."""
        if self.cell[0] != "non_extreme_max_gradient":
            return {}
        return {"drop_fraction": self.config.drop_fraction}

    @property
    def said(self) -> dict[str, Any]:
        """What files of before this was told do not say of their draw."""
        return {**self.options, **({"weights": WEIGHTS} if self.cell[0] == "gradient_cdf" else {})}

    @property
    def origin(self) -> dict[str, Any]:
        """What the subset comes from."""
        return {**self.shared, **self.said}

    def to(self, url: str) -> None:
        """Draws the subset to a file."""
        balanced = self.config.class_balanced
        draw_subset(
            self.source.url,
            url,
            *self.cell,
            self.origin,
            score_column=self.config.score_column,
            class_balanced=False if balanced == "no" else balanced,
            missing=self.config.missing,
            **self.options,
        )

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
                f"{'; '.join(differ)}. Name another --run, or remove the file to draw it again."
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
