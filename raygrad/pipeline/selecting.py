"""The stage select: subsets for every method, keep_fraction and seed."""

import itertools
import logging
from typing import Any

from raygrad.config import SelectConfig, StudyConfig
from raygrad.data import storage
from raygrad.data.layout import RunLayout
from raygrad.data.subsets import draw_subset, read_subset
from raygrad.errors import ConfigError
from raygrad.pipeline.stages import facts_of

log = logging.getLogger("raygrad")


def select(config: StudyConfig) -> None:
    """Draws a subset for every method, keep_fraction and seed that has none yet."""
    layout, network = RunLayout(config.run), config.train.network
    origin = {
        "scores": facts_of(layout, f"score-{network}")["digest"],
        "score_network": network,
        "score_column": config.select.score_column,
        "class_balanced": config.select.class_balanced,
        "missing": config.select.missing,
    }
    cells = grid(config.select)
    missing = [cell for cell in cells if not _is_drawn(layout, cell, origin)]
    balanced = config.select.class_balanced
    for cell in missing:
        options: dict[str, Any] = {}
        if cell[0] == "non_extreme_max_gradient":
            options["drop_fraction"] = config.select.drop_fraction
        draw_subset(
            layout.scores(network),
            layout.subset(*cell),
            *cell,
            origin,
            score_column=config.select.score_column,
            class_balanced=False if balanced == "no" else balanced,
            missing=config.select.missing,
            **options,
        )
    log.info("select: %d subsets drawn, %d were there", len(missing), len(cells) - len(missing))


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


def _is_drawn(layout: RunLayout, cell: tuple[str, float, int], origin: dict[str, Any]) -> bool:
    url = layout.subset(*cell)
    if not storage.exists(url):
        return False
    _, found = read_subset(url)
    differ = [f"{k} {found.get(k)!r}, now {v!r}" for k, v in origin.items() if found.get(k) != v]
    if differ:
        raise ConfigError(
            f"subset {url} must come from this run's scores, got one drawn from "
            f"{'; '.join(differ)}. Name another --run, or remove the file to draw it again."
        )
    return True
