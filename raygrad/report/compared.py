"""What a page of several runs begins with: the data sets beside each other."""

from collections.abc import Sequence

from raygrad.report.figures.attributes import attributes_figure
from raygrad.report.figures.base import Drawn
from raygrad.report.figures.entropy import entropy_figure
from raygrad.report.figures.relative import relative_figure
from raygrad.report.findings import MARGIN, needs
from raygrad.report.markup import table
from raygrad.report.opening import main_panel
from raygrad.report.page import Chapter, Section
from raygrad.report.results import BASELINE, Panel
from raygrad.report.tables import Run
from raygrad.report.wording import percent, protocol_words

TITLE, PLACE = "All together", "compared"
"""Its heading, and what the names of its figures begin with: no run's do."""


def compared_chapter(runs: Sequence[Run], panels: Sequence[Sequence[Panel]]) -> Chapter:
    """The figures and the table that set several runs beside each other.

    Args:
        runs: Two runs or more, with names that differ.
        panels: The curves of each run.
    """
    chosen = {
        run.name: panel
        for run, mine in zip(runs, panels, strict=True)
        if (panel := main_panel(mine, run.main_network)) is not None
    }
    parts: list[Drawn | str] = [
        _table(runs, chosen),
        attributes_figure(chosen, "compared-attributes"),
        relative_figure(chosen),
        entropy_figure(runs, name="compared-entropy"),
    ]
    return Chapter(TITLE, [], [], [Section("Side by side", parts=parts)])


def _bounds(panel: Panel, method: str) -> str:
    need = next((n for n in needs(panel) if n.method == method), None)
    if need is None or (need.enough is None and need.too_little is None):
        return "open"
    above = f"> {percent(need.too_little)}" if need.too_little is not None else ""
    below = f"<= {percent(need.enough)}" if need.enough is not None else ""
    return ", ".join(part for part in (above, below) if part)


def _table(runs: Sequence[Run], chosen: dict[str, Panel]) -> str:
    rows = []
    for run in runs:
        panel = chosen.get(run.name)
        full = panel.full.interval if panel is not None and panel.full is not None else None
        scores = run.scores.get(run.main_network or "")
        rows.append(
            (
                run.name,
                panel.network if panel is not None else run.main_network,
                protocol_words(panel.protocol) if panel is not None else None,
                run.num_classes,
                len(scores.labels) if scores is not None else None,
                100 * full.mean if full is not None else None,
                100 * full.low if full is not None and full.known else None,
                100 * full.high if full is not None and full.known else None,
                panel.score_network_counts[0] if panel is not None else None,
                _bounds(panel, BASELINE) if panel is not None else None,
                _bounds(panel, "max_gradient") if panel is not None else None,
            )
        )
    return table(
        (
            "run",
            "network",
            "protocol",
            "classes",
            "examples",
            "full accuracy (%)",
            "from",
            "to",
            "scoring networks",
            f"{BASELINE} needs",
            "max_gradient needs",
        ),
        rows,
        f"The runs, with the data that it takes to come within {100 * MARGIN:g} points of full "
        "accuracy",
        formats=("", "", "", ",d", ",d", ".2f", ".2f", ".2f", "d", "", ""),
    )
