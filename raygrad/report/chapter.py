"""One run's part of the page: which figures and tables stand in it, in which order."""

from collections.abc import Sequence
from dataclasses import replace

from raygrad.report.audit_page import audit_section
from raygrad.report.figures.accuracy import accuracy_figure, panel_title
from raygrad.report.figures.attributes import attributes_figure
from raygrad.report.figures.base import Drawn, Figure
from raygrad.report.figures.bound import bound_figure
from raygrad.report.figures.cost import cost_figure
from raygrad.report.figures.gain import gain_figure
from raygrad.report.figures.heatmap import heatmap_figure
from raygrad.report.findings import Finding, findings
from raygrad.report.markup import findings_list, slug
from raygrad.report.opening import facts, lead, main_panel, opening
from raygrad.report.page import Chapter, Section
from raygrad.report.results import Panel, panels_of, trials_of
from raygrad.report.scored import read_scored, scored_sections
from raygrad.report.sheets import cost_sheets, provenance_sheets, reject_sheet, result_sheets
from raygrad.report.tables import Run

_METHOD_NOTE = (
    "Intervals are 95% Student t intervals over seeds, or over the means of several scoring "
    "networks: replicates of one network share its scores and scatter less than two networks do. "
    "Methods are compared with random by Holm's method over all methods and fractions of one "
    "network and protocol, so that its verdicts hold together with 95% (those of several do not); "
    "the spread at a fraction is pooled over the methods. They take the test set as given: its own "
    "sampling error is not in them."
)


def run_panels(run: Run) -> list[Panel]:
    """The curves of a run's sweep; none where there is no sweep."""
    if run.results is None:
        return []
    chance = 1 / run.num_classes if run.num_classes > 1 else 0.0
    return panels_of(trials_of(run.results), run.num_test(), chance)


def run_chapter(run: Run, panels: Sequence[Panel], place: str | None = None) -> Chapter:
    """Computes everything that the report shows of one run.

    Args:
        run: Its tables.
        panels: The curves of its sweep.
        place: Its element id among several, which the names of its figures begin with; None where
            it is the only run.
    """
    found = findings(panels)
    scored = read_scored(run)
    first = opening(run, panels, scored.thumbnails if scored is not None else {})
    nothing = "There are no scores yet; `raygrad score` computes them."
    sweep = run.results is not None
    sections = [
        audit_section(run),
        Section("Findings", parts=_findings(found, main_panel(panels, run.main_network))),
        Section("Accuracy", parts=_accuracy(panels) if sweep else []),
        *(
            scored_sections(scored, opens=not panels, place=place or slug(run.name))
            if scored is not None
            else [Section("Images", intro=[nothing])]
        ),
        Section("Training", parts=[heatmap_figure(run, run.score_column), bound_figure(run)]),
        Section("Results", parts=result_sheets(run)),
        Section(
            "Cost", parts=[*([cost_figure(panels)] if sweep else []), *cost_sheets(run, panels)]
        ),
        Section("Provenance", parts=provenance_sheets(run)),
        Section("Rejects", parts=[reject_sheet(run)]),
        Section("Left out", intro=run.notes),
    ]
    if place is not None:
        sections = [replace(s, parts=_prefixed(s.parts, place)) for s in sections]
        first = _prefixed(first, place)
    said = lead(run, panels, found)
    return Chapter(run.name, said, facts(run, panels), sections, first, place or "")


def _findings(found: Sequence[Finding], main: Panel | None) -> list[Drawn | str]:
    if main is None or not found:
        return []
    first = (main.network, main.protocol)
    return [findings_list(found, first), f'<p class="note">{_METHOD_NOTE}</p>']


def _accuracy(panels: Sequence[Panel]) -> list[Drawn | str]:
    named = {panel_title(p): p for p in panels}
    # A single panel opens the page.
    whole: list[Drawn | str] = [accuracy_figure(panels)] if len(panels) != 1 else []
    return [*whole, gain_figure(panels), attributes_figure(named, "attributes")]


def _prefixed(parts: Sequence[Drawn | str], prefix: str) -> list[Drawn | str]:
    return [
        replace(part, name=f"{prefix}-{part.name}") if isinstance(part, Figure) else part
        for part in parts
    ]
