"""Files that are in the data more than once, with what they are labelled as."""

import numpy as np

from raygrad.report.figures.base import Drawn, Missing
from raygrad.report.figures.galleries import gallery_figure
from raygrad.report.figures.images import describe
from raygrad.report.repeats import find_repeats
from raygrad.report.tables import Run
from raygrad.report.wording import count

_MOST_GROUPS = 12


def repeats_figure(run: Run, network: str, column: str) -> Drawn:
    """Files that are there more than once, a group after the other."""
    title = "Repeated files"
    found = find_repeats(run, network)
    if found is None:
        return Missing("repeats", title, "It takes the index, and images that can be read.")
    more = (
        f" {count(found.left)} more that agree in size and scores were not read."
        if found.left
        else ""
    )
    blind = (
        ""
        if found.blind
        else (" Copies under another label were not looked for: that takes the score entropy.")
    )
    how = (
        f"Files that agree in size and in their scores were compared byte by byte "
        f"({count(found.compared)} read); copies that were scaled or compressed anew are not found."
        f"{more}{blind}"
    )
    if not found.groups:
        return Missing("repeats", title, f"No two of the examples are the same file. {how}")
    scores = run.scores[network]
    differing = [len(np.unique(scores.labels[g])) > 1 for g in found.groups]
    caption = (
        f"{count(sum(map(len, found.groups)))} examples are {count(len(found.groups))} files; "
        f"{count(sum(differing))} of these stand under more than one label, and come first. {how}"
    )
    rows = [(f"file {i + 1}", g) for i, g in enumerate(found.groups[:_MOST_GROUPS])]
    examples = [e for e in describe(run, scores, column, rows) if e.key in found.pictures]
    return gallery_figure("repeats", title, caption, column, examples, found.pictures, "file")
