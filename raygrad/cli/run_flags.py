"""What several subcommands share: the flags of a run folder, and where things stand in it.

What a stage needs is imported when it runs: torch, Ray and the stores take seconds, which a help
page or a wrong flag need not wait for.
"""

from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from raygrad.runs.layout import RunLayout

Redo = Annotated[
    bool,
    tyro.conf.arg(
        help="Do again, and remove with all that came of it, what is complete of other inputs; "
        "a stage of its own is done again in any case."
    ),
]

Run = Annotated[str, tyro.conf.arg(help="The run folder, on local disk or s3://.")]
Wait = Annotated[
    float,
    tyro.conf.arg(
        help="Seconds that room on the cluster is waited for, inf for ever; then: exit 3."
    ),
]


def layout(run: str) -> "RunLayout":
    """Returns where everything stands in a run folder."""
    from raygrad.runs.layout import RunLayout

    return RunLayout(run)
