"""Where a run stands, as a notebook shows it."""

from collections.abc import Sequence
from html import escape

from raygrad.pipeline.surveying import StageStatus

_MARKS = {"complete": "&#10003;", "running": "&#8635;", "stopped": "&#9208;", "missing": "&#183;"}
_CELL = 'style="text-align:left;padding:.15em .8em .15em 0"'


def standing_html(folder: str, status: Sequence[StageStatus]) -> str:
    """Returns the stages of a run as a small table.

    Args:
        folder: The run folder.
        status: Of `raygrad.pipeline.status`; none where the run has not begun.
    """
    title = f"<p><b>raygrad run</b> <code>{escape(folder)}</code></p>"
    if not status:
        return f"{title}<p>Nothing yet: begin with <code>index</code>, <code>prepare</code> or "\
            "<code>audit</code>.</p>"  # fmt: skip
    rows = "".join(
        f"<tr><td {_CELL}>{_MARKS[one.state]} {escape(one.stage)}</td>"
        f"<td {_CELL}>{one.state}</td><td {_CELL}>{escape(one.note)}</td>"
        f"<td {_CELL}>{_time(one)}</td></tr>"
        for one in status
    )
    return f"{title}<table><tbody>{rows}</tbody></table>"


def _time(one: StageStatus) -> str:
    return f"{one.seconds:,.0f} s" if one.starts else ""
