"""The sections that one run's scores fill: images, what looks wrong, classes and agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.report.browser import browser_data, browser_markup
from raygrad.report.examples import choose_examples, hardest_first
from raygrad.report.figures.agreement import agreement_figure
from raygrad.report.figures.base import Drawn
from raygrad.report.figures.cartography import cartography_figure, corners, corners_figure
from raygrad.report.figures.classes import classes_figure
from raygrad.report.figures.concentration import concentration_figure
from raygrad.report.figures.correlation import correlation_figure
from raygrad.report.figures.entropy import entropy_figure
from raygrad.report.figures.galleries import (
    hardest,
    hardest_figure,
    top_sample,
    top_sample_figure,
)
from raygrad.report.figures.images import grid_positions, images_figure
from raygrad.report.figures.kept_classes import kept_classes_figure
from raygrad.report.figures.overlap import overlap_figure
from raygrad.report.figures.repeated import repeats_figure
from raygrad.report.figures.suspects import suspect_positions, suspects_figure
from raygrad.report.kept import Kept, read_kept
from raygrad.report.page import Section
from raygrad.report.pulled import Pull, pulled_section, read_pulls
from raygrad.report.tables import Run
from raygrad.report.thumbnails import Thumbnail, read_thumbnails
from raygrad.report.wording import count

MAX_IMAGES = 2000


@dataclass(frozen=True)
class Scored:
    """A run's main scores with the pictures and the subsets that the page shows of them.

    Attributes:
        run: The run.
        network: Whose scores come first.
        column: The score that orders examples.
        shown: Rows of the score table that the browser shows, hardest first.
        thumbnails: Pictures by key.
        failures: Why shards could not be read, one a shard.
        kept: The subsets drawn by these scores.
        pulls: What pulls the loss of the images that influence was found of.
        num_pulls: How many those are, of which `pulls` are the first.
    """

    run: Run
    network: str
    column: str
    shown: np.ndarray
    thumbnails: Mapping[str, Thumbnail]
    failures: Sequence[str]
    kept: Sequence[Kept]
    pulls: Sequence[Pull] = ()
    num_pulls: int = 0


def read_scored(run: Run) -> Scored | None:
    """Reads pictures and subsets of a run's main scores; None where there are no scores."""
    network, column = run.main_network, run.score_column
    if network is None or column is None or column not in run.scores[network].columns:
        return None
    pulls, num_pulls = read_pulls(run)
    pulling = [key for pull in pulls for key in pull.keys]
    shown = _shown_examples(run, network, column, pulling)
    keys = run.scores[network].table["key"].take(shown).to_pylist()
    pulled = [*pulling, *(pull.query for pull in pulls)]
    thumbnails, failures = _thumbnails(run, [*keys, *_picked_keys(run, column), *pulled])
    kept = read_kept(run, network)
    return Scored(run, network, column, shown, thumbnails, failures, kept, pulls, num_pulls)


def scored_sections(scored: Scored, opens: bool, place: str) -> list[Section]:
    """Images, what looks wrong, and what the scores say of classes and of each other.

    Args:
        scored: The scores with their pictures.
        opens: Whether the page opens with the scores, and so has drawn their concentration.
        place: What the id of the browser of images begins with.
    """
    run, network, column = scored.run, scored.network, scored.column
    thumbnails, failures = scored.thumbnails, scored.failures
    images: list[Drawn | str] = [images_figure(run, network, column, thumbnails)]
    if thumbnails:
        data = browser_data(run, network, column, scored.shown, thumbnails, scored.kept)
        images.append(browser_markup(data, f"{place}-browser"))
    images += [hardest_figure(run, column, thumbnails), top_sample_figure(run, column, thumbnails)]
    wrong: list[Drawn | str] = [
        suspects_figure(run, network, column, thumbnails),
        repeats_figure(run, network, column),
    ]
    spread: list[Drawn | str] = [] if opens else [concentration_figure(run, network, column)]
    hard: list[Drawn | str] = [
        *spread,
        classes_figure(run, network, column),
        cartography_figure(run, network),
        corners_figure(run, network, thumbnails),
        entropy_figure([run]),
    ]
    agreed: list[Drawn | str] = [
        overlap_figure(run, column),
        agreement_figure(run, network, column),
        correlation_figure(run, network, column),
    ]
    unread = []
    if failures:
        unread = [f"Images of {count(len(failures))} shards could not be read: {failures[0]}"]
    selection = kept_classes_figure(run, network, scored.kept)
    return [
        Section("Images", intro=unread, parts=images),
        Section("What looks wrong", parts=wrong),
        pulled_section(run, scored.pulls, scored.num_pulls, thumbnails),
        Section("Selection", parts=[selection] if run.results is not None or scored.kept else []),
        Section("What is hard", parts=hard),
        Section("Agreement", parts=agreed),
    ]


def _shown_examples(run: Run, network: str, column: str, pulling: Sequence[str]) -> np.ndarray:
    """Positions of the browser's examples: the chosen, the figures', the probe's, and `pulling`."""
    scores = run.scores[network]
    values = scores.values(column)
    shown = np.zeros(len(values), dtype=bool)
    shown[choose_examples(values, scores.labels, MAX_IMAGES)] = True
    for _, positions in grid_positions(values):
        shown[positions] = True
    for _, positions in (*suspect_positions(run, network, column), *corners(run, network)):
        shown[positions] = True
    followed = run.probe[network]["key"].to_pylist() if network in run.probe else []
    wanted = pa.array(sorted({*followed, *_picked_keys(run, column), *pulling}), pa.string())
    shown |= pc.is_in(scores.table["key"], value_set=wanted).to_numpy()
    order = hardest_first(values)
    return order[shown[order]]


def _picked_keys(run: Run, column: str) -> list[str]:
    """Keys of the examples that the figures show of each network."""
    return [
        key
        for scores in run.scores.values()
        if column in scores.columns
        for pick in (hardest, top_sample)
        for key in scores.table["key"].take(pick(scores, column)).to_pylist()
    ]


def _thumbnails(run: Run, keys: Sequence[str]) -> tuple[Mapping[str, Thumbnail], list[str]]:
    if run.index is None:
        return {}, []
    return read_thumbnails(run.index, keys, int(run.dataset.get("channels") or 3))
