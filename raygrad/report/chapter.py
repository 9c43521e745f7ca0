"""One run's part of the page: which figures and tables stand in it, in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raygrad.report.browser import browser_data, browser_markup
from raygrad.report.examples import choose_examples, hardest_first
from raygrad.report.figures.accuracy import accuracy_figure, panel_title
from raygrad.report.figures.attributes import attributes_figure
from raygrad.report.figures.base import Drawn, Figure
from raygrad.report.figures.bound import bound_figure
from raygrad.report.figures.classes import classes_figure
from raygrad.report.figures.correlation import correlation_figure
from raygrad.report.figures.cost import cost_figure
from raygrad.report.figures.entropy import entropy_figure
from raygrad.report.figures.gain import gain_figure
from raygrad.report.figures.galleries import (
    hardest,
    hardest_figure,
    suspects,
    suspects_figure,
    top_sample,
    top_sample_figure,
)
from raygrad.report.figures.heatmap import heatmap_figure
from raygrad.report.figures.images import grid_positions, images_figure
from raygrad.report.figures.overlap import overlap_figure
from raygrad.report.findings import Finding, findings
from raygrad.report.markup import findings_list, slug
from raygrad.report.page import Chapter, Section
from raygrad.report.results import Panel, main_panel, panels_of, trials_of
from raygrad.report.sheets import cost_sheets, provenance_sheets, reject_sheet, result_sheets
from raygrad.report.tables import Run
from raygrad.report.thumbnails import Thumbnail, read_thumbnails
from raygrad.report.wording import count, percent, protocol_words

MAX_IMAGES = 2000
_METHOD_NOTE = (
    "Intervals are 95% Student t intervals over seeds, or over the means of several scoring "
    "networks: replicates of one network share its scores and scatter less than two networks do. "
    "Methods are compared with random by Holm's method over all methods and fractions, so that all "
    "verdicts hold together with 95%; the spread at a fraction is pooled over the methods. They "
    "take the test set as given: its own sampling error is not in them."
)


def run_panels(run: Run) -> list[Panel]:
    """The curves of a run's sweep; none where there is no sweep."""
    return panels_of(trials_of(run.results), run.num_test()) if run.results is not None else []


def run_chapter(run: Run, panels: Sequence[Panel], alone: bool) -> Chapter:
    """Computes everything that the report shows of one run.

    Args:
        run: Its tables.
        panels: The curves of its sweep.
        alone: Whether it is the only run; otherwise its figures' names begin with the run's.
    """
    found = findings(panels)
    sections = [
        Section("Findings", parts=_findings(found)),
        Section("Accuracy", parts=_accuracy(panels)),
        *_scored_sections(run),
        Section("Training", parts=[heatmap_figure(run, run.score_column), bound_figure(run)]),
        Section("Results", parts=result_sheets(run)),
        Section("Cost", parts=[cost_figure(panels), *cost_sheets(run, panels)]),
        Section("Provenance", parts=provenance_sheets(run)),
        Section("Rejects", parts=[reject_sheet(run)]),
        Section("Left out", intro=run.notes),
    ]
    if not alone:
        sections = [_prefixed(s, slug(run.name)) for s in sections]
    return Chapter(run.name, _lead(run, panels, found), _facts(run, panels), sections)


def _lead(run: Run, panels: Sequence[Panel], found: Sequence[Finding]) -> list[str]:
    """The first findings on the network that stands for the run: of each protocol, as equals."""
    main = main_panel(panels, run.main_network)
    if main is None:
        return []
    protocols = [p.protocol for p in panels if p.network == main.network]
    lead = []
    for protocol in protocols:
        mine = [f.text for f in found if (f.network, f.protocol) == (main.network, protocol)]
        where = f"{main.network}, {protocol_words(protocol)}: " if len(panels) > 1 else ""
        lead.append(f"{where}{mine[0]}")
        lead += mine[1:2] if len(protocols) == 1 else []
    return lead


def _findings(found: Sequence[Finding]) -> list[Drawn | str]:
    return [findings_list(found), f'<p class="note">{_METHOD_NOTE}</p>'] if found else []


def _accuracy(panels: Sequence[Panel]) -> list[Drawn | str]:
    named = {panel_title(p): p for p in panels}
    return [accuracy_figure(panels), gain_figure(panels), attributes_figure(named, "attributes")]


def _prefixed(section: Section, prefix: str) -> Section:
    def renamed(part: Drawn | str) -> Drawn | str:
        return replace(part, name=f"{prefix}-{part.name}") if isinstance(part, Figure) else part

    return replace(section, parts=[renamed(p) for p in section.parts])


def _scored_sections(run: Run) -> list[Section]:
    network, column = run.main_network, run.score_column
    if network is None or column is None or column not in run.scores[network].columns:
        nothing = "There are no scores yet; `raygrad score` computes them."
        return [Section("Images", intro=[nothing])]
    shown = _shown_examples(run, network, column)
    keys = run.scores[network].table["key"].take(shown).to_pylist()
    thumbnails, failures = _thumbnails(run, [*keys, *_picked_keys(run, column)])
    images: list[Drawn | str] = [images_figure(run, network, column, thumbnails)]
    if thumbnails:
        data = browser_data(run, network, column, shown, thumbnails)
        images.append(browser_markup(data, f"{slug(run.name)}-browser"))
    images += [
        suspects_figure(run, network, column, thumbnails),
        hardest_figure(run, column, thumbnails),
        top_sample_figure(run, column, thumbnails),
    ]
    scores: list[Drawn | str] = [
        classes_figure(run, network, column),
        entropy_figure([run]),
        overlap_figure(run, column),
        correlation_figure(run, network, column),
    ]
    unread = []
    if failures:
        unread = [f"Images of {count(len(failures))} shards could not be read: {failures[0]}"]
    return [
        Section("Images", intro=unread, parts=images),
        Section("Scores", parts=scores),
    ]


def _shown_examples(run: Run, network: str, column: str) -> np.ndarray:
    """Positions of the browser's examples: the chosen, the figures' own, and the probe's."""
    scores = run.scores[network]
    values = scores.values(column)
    shown = np.zeros(len(values), dtype=bool)
    shown[choose_examples(values, scores.labels, MAX_IMAGES)] = True
    for _, positions in grid_positions(values):
        shown[positions] = True
    if "prediction" in scores.table.column_names:
        shown[suspects(scores, "loss" if "loss" in scores.columns else column)] = True
    followed = run.probe[network]["key"].to_pylist() if network in run.probe else []
    wanted = pa.array(sorted({*followed, *_picked_keys(run, column)}), pa.string())
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


def _facts(run: Run, panels: Sequence[Panel]) -> list[tuple[str, str]]:
    facts = []
    metrics = run.metrics.get(run.main_network or "") or next(iter(run.metrics.values()), {})
    for name, title in (
        ("num_train", "training examples"),
        ("num_val", "validation"),
        ("num_test", "test"),
    ):
        if metrics.get(name):
            facts.append((title, count(int(metrics[name]))))
    if run.num_classes:
        facts.append(("classes", count(run.num_classes)))
    main = main_panel(panels, run.main_network)
    if main is not None and main.full is not None:
        facts.append(("accuracy on all data", percent(main.full.interval.mean)))
    if run.results is not None:
        facts.append(("retrainings", count(run.results.num_rows)))
    return facts
