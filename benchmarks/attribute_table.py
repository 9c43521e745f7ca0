"""Simplicity and redundancy of every data set of the leaderboard, as one table."""

from collections.abc import Iterator, Sequence

from raygrad.report.attributes import attributes
from raygrad.report.results import BASELINE, Panel
from raygrad.report.wording import bracket_words, percent, protocol_words

METHODS = (BASELINE, "max_gradient", "non_extreme_max_gradient", "gradient_cdf")
"""The paper's methods, whose redundancy stands in the table."""
LEAST = 3
"""Replicates that an entry needs, here as in the tables below."""
COLUMN = "grad_l2_last_layer_weights"
"""What the paper's methods draw by (Figure 8a)."""
HEAD = """## Simplicity and redundancy

Simplicity is the area under random's accuracy over the logarithm of the share kept, from the share
named on, relative to that of all the data (1: any subset teaches as much), with its 95% interval.
Redundancy is the share that a method may leave out within half a point of accuracy: a bracket
between two measured shares. Of sweeps that have all the data and random subsets alone.
"""


def row(name: str, panel: Panel) -> list[str] | None:
    """Returns a panel's row; None where it says nothing of either, or by too few replicates."""
    found = attributes(panel)
    if found is None or found.simplicity.num_seeds < LEAST:
        return None
    of = found.simplicity
    interval = f" ({of.low:.3f} to {of.high:.3f})" if of.known else ""
    # Where a sweep draws by several columns or networks' scores, a curve is named with its own.
    marks = ("", f" ({COLUMN})", f" (scored by {panel.network})")
    named = [
        next((one for mark in marks if (one := found.redundancy.get(m + mark))), None)
        for m in METHODS
    ]
    methods = [bracket_words(one) if one is not None else "" for one in named]
    network = f"{panel.network}, {protocol_words(panel.protocol)}"
    start = percent(found.simplicity_from)
    return [name, network, f"{of.mean:.3f}{interval} from {start}, n = {of.num_seeds}", *methods]


def table(panels: Iterator[tuple[str, Panel]] | Sequence[tuple[str, Panel]]) -> str:
    """Returns the section of the page as Markdown.

    Args:
        panels: Of each data set, by its name.
    """
    head = ["data set", "network", "simplicity", *METHODS]
    rows = [found for name, panel in panels if (found := row(name, panel)) is not None]
    lines = [head, ["---"] * len(head), *rows]
    return HEAD + "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
