"""The page of an audit: wrong labels, repeats, outliers, what stays and what goes."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from raygrad import __version__
from raygrad.report.audit_browser import audit_browser, views
from raygrad.report.markup import table
from raygrad.report.page import Chapter, Section, render_page
from raygrad.report.tables import Run
from raygrad.report.thumbnails import Thumbnail, read_thumbnails
from raygrad.report.wording import count, percent
from raygrad.runs.audit_tables import doubt, read_audit
from raygrad.storage.files import join, write_bytes

PAGE = "audit.html"
_MOST_PAIRS = 30

_RANKED = {
    "tempered_odds": "how unlikely they are, and a little how likely another class is",
    "noise_odds": "how unlikely they are, by which classes seem to be labelled as which",
    "log_odds": "how much likelier another class is to who has not seen them",
    "loss": "the loss of who has not seen them",
    "margin": "how far another class is ahead",
    "gradient_norm": "the norm of the last layer's gradient",
    "aum": "the margin while they were trained on (AUM)",
}


def write_audit_page(run: Run, out: str) -> str | None:
    """Writes the page of a run's audit beside the report; None where there is none.

    Args:
        run: Its tables.
        out: The report's folder.

    Returns:
        The page's URL.
    """
    tables, summary = read_audit(join(run.url, "audit"))
    if not tables:
        return None
    found = views(tables)
    pictures: Mapping[str, Thumbnail] = {}
    failures: list[str] = []
    if run.index is not None:
        keys = [key for view in found for key in view.keys]
        pictures, failures = read_thumbnails(run.index, keys, int(run.dataset.get("channels") or 3))
    unread = f"Images of {count(len(failures))} shards could not be read: "
    notes = [unread + failures[0]] if failures else []
    sections = [
        Section("Look and choose", intro=notes, parts=[audit_browser(found, pictures)]),
        Section("What leaving out costs", intro=_costs(summary)),
        Section("Confused labels", parts=[_pairs(summary)]),
        Section("How it was found", intro=_how(summary), parts=[_files("check" in tables)]),
    ]
    chapter = Chapter(run.name, _lead(summary), _facts(summary), sections)
    html = render_page(
        f"What is wrong in {_title(run)}?",
        [chapter],
        {},
        f"Made by raygrad {__version__} from {run.url}.",
    )
    url = join(out, PAGE)
    write_bytes(url, html.encode("utf-8"))
    return url


def _title(run: Run) -> str:
    """A name that says more than that the data were a folder of images."""
    return run.url.rstrip("/").rsplit("/", 1)[-1] if run.name == "image-folder" else run.name


def audit_section(run: Run) -> Section:
    """What the report says of an audit: its figures, and where its page is; empty without one."""
    tables, summary = read_audit(join(run.url, "audit"))
    if not tables:
        return Section("Audit")
    link = f'<p><a href="{PAGE}">Browse wrong labels, repeats, outliers and what stays</a></p>'
    return Section("Audit", intro=_lead(summary), parts=[link])


def _lead(summary: Mapping[str, Any]) -> list[str]:
    total = summary["num_examples"]
    weak = doubt(summary["accuracy"])
    return [
        f"Of {count(total)} images about {count(round(summary['num_wrong']))} are labelled wrongly "
        f"({count(round(summary['num_wrong_low']))} to {count(round(summary['num_wrong_high']))}, "
        f"as far as the network is right where it is sure); {count(summary['num_suspects'])} are "
        f"suspects. {count(summary['num_repeated'])} images repeat one another, "
        f"{count(summary['num_across_splits'])} groups across splits and "
        f"{count(summary['num_across_labels'])} across labels.",
        *([f"{weak}."] if weak else []),
    ]


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("suspects", count(summary["num_suspects"])),
        ("repeated", count(summary["num_repeated"])),
        ("outliers", count(summary["num_odd"])),
        ("kept of training", count(summary["num_kept"])),
        ("network right", percent(summary["accuracy"])),
    ]


def _costs(summary: Mapping[str, Any]) -> list[str]:
    """What a check came to; nothing where none was asked for."""
    if "check" not in summary:
        return []
    return [summary["check"]["words"][:1].upper() + summary["check"]["words"][1:] + "."]


def _pairs(summary: Mapping[str, Any]) -> str:
    """The confused classes, as shares of the examples: a picture of the joint in a table."""
    joint = np.array(summary["joint"])
    names: Sequence[str] = summary["classes"]
    total = summary["num_examples"]
    np.fill_diagonal(joint, 0.0)
    order = np.argsort(-joint, axis=None)[:_MOST_PAIRS]
    rows = [
        (names[at // len(names)], names[at % len(names)], float(joint.flat[at] * total))
        for at in order.tolist()
        if joint.flat[at] * total >= 0.5
    ]
    if not rows:
        return '<p class="note">No class is told to be mistaken for another.</p>'
    caption = "Labelled as one class and rather another: estimated examples, the most first"
    heat = _heat(joint * total, names) if len(names) <= _MOST_PAIRS else ""
    return heat + table(("labelled", "rather", "examples"), rows, caption, formats=("", "", ".1f"))


def _heat(counts: np.ndarray, names: Sequence[str]) -> str:
    """The joint as a grid, its cells as dark as they are full."""
    most = max(float(counts.max()), 1e-9)
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th>'
        + "".join(
            f'<td class="num" style="background:color-mix(in srgb, var(--vermillion) '
            f'{round(70 * value / most)}%, transparent)">{value:.0f}</td>'
            if value >= 0.5
            else '<td class="num"></td>'
            for value in row
        )
        + "</tr>"
        for name, row in zip(names, counts, strict=True)
    )
    caption = "Estimated wrong labels: rows as they are labelled, columns what they rather are"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _how(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"Every image was judged by a network that has not seen it: {summary['how']}. It agrees "
        f"with {percent(summary['accuracy'])} of the labels; what it gets wrong itself is among "
        "the suspects, so that only looking tells.",
        "Suspects are told by confident learning (Northcutt et al. 2021), and labels ranked by "
        f"{_RANKED.get(summary.get('options', {}).get('ranking', ''), 'their margin')}. The "
        "interval is over draws of the images and holds no error of the network.",
        *(f"Near copies: {note}." for note in summary["near"]),
        f"Kept: flaws go first, then {summary['rule']}.",
    ]


def _files(checked: bool) -> str:
    links = ", ".join(
        f'<a href="../audit/{name}.csv">{name}.csv</a>'
        for name in ("labels", "repeats", "outliers", "keep", "drop", *["check"] * checked)
    )
    return f"<p>Whole lists: {links}.</p>"
