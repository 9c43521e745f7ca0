"""Pieces of HTML: escaped text, tables, and figures whose colours follow the page's theme."""

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from raygrad.report.findings import Finding
from raygrad.report.style import THEME
from raygrad.report.wording import protocol_words

_IDS = re.compile(r'(\bid="|url\(#|xlink:href="#|href="#)')
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r"#([\w-]+)[\")]")
_PROLOG = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_FONT = re.compile(r"'DejaVu Sans'(, [^;\"]*)?")


def slug(text: str) -> str:
    """Text as an element id: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def unique_slugs(texts: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Each text's slug, with a number behind it where an earlier text has that already.

    Texts that differ only in letters that no slug has ("cats v1", "cats-v1", or two names that are
    not Latin) are told apart so.

    Args:
        texts: In the order in which they are named.
        taken: Slugs that none of them gets.
    """
    gone, out = set(taken), []
    for text in texts:
        first = found = slug(text)
        for number in itertools.count(2):
            if found not in gone:
                break
            found = f"{first}-{number}"
        gone.add(found)
        out.append(found)
    return out


def json_script(data: Any) -> str:
    """Data as a script element that holds JSON, which no text in it can end or hide the end of.

    Not only ``</script>`` would: after ``<!--<script>``, a browser takes the first end of a script
    for text (the "script data double escaped state" of the HTML standard, section 13.2.5).

    Args:
        data: What JSON can hold.
    """
    blob = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json">{blob}</script>'


def inline_svg(svg: str, name: str, alt: str, css_class: str) -> str:
    """An SVG file's text as an element of the page.

    Its colours become the theme's variables, its font the page's, its ids unique in the page.

    Args:
        svg: The text of the file.
        name: Prefix of its ids.
        alt: What a screen reader says instead.
        css_class: Class of the element.
    """
    body = _METADATA.sub("", _PROLOG.sub("", svg, count=1))
    head, rest = body.split(">", 1)
    head = re.sub(r' (width|height|version|xmlns:xlink)="[^"]*"', "", head)
    used = set(_USED.findall(rest))
    rest = _ID.sub(lambda m: m.group() if m.group(1) in used else "", rest)
    rest = _IDS.sub(rf"\g<1>{name}-", rest).replace("xlink:href", "href")
    for color, variable in THEME.items():
        rest = rest.replace(color, f"var({variable})")
    rest = _FONT.sub("var(--sans)", rest)
    return f'{head} class="{css_class}" role="img" aria-label="{escape(alt)}">{rest.strip()}'


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | float | int | None]],
    caption: str,
    sortable: bool = True,
    formats: Sequence[str] | None = None,
) -> str:
    """A table; numbers are set to the right and keep their exact value for sorting.

    Args:
        columns: Heads.
        rows: Cells; a float is shown by its format, None as an empty cell.
        caption: What the table holds, shown above it.
        sortable: Whether heads are buttons that sort.
        formats: A format specification a column for its numbers, such as ``".2f"``.
    """
    specs = list(formats or [""] * len(columns))
    head = "".join(_head(c, spec, sortable) for c, spec in zip(columns, specs, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell(v, spec) for v, spec in zip(row, specs, strict=True))}</tr>\n"
        for row in rows
    )
    css = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{css}><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(text: str, spec: str, sortable: bool) -> str:
    css = ' class="num"' if spec else ""
    if not sortable:
        return f'<th scope="col"{css}>{escape(text)}</th>'
    return (
        f'<th scope="col"{css} aria-sort="none"><button type="button">{escape(text)}</button></th>'
    )


def _cell(value: str | float | int | None, spec: str) -> str:
    if value is None or value != value:
        return '<td class="num" data-value="">n/a</td>'
    if isinstance(value, bool | str):
        css = ' class="wrap"' if len(str(value)) > 60 else ""
        return f"<td{css}>{escape(str(value))}</td>"
    shown = format(value, spec or (",d" if isinstance(value, int) else ".4g"))
    return f'<td class="num" data-value="{value!r}">{shown}</td>'


def findings_list(found: Sequence[Finding], first: tuple[str, str]) -> str:
    """Findings by network and protocol; those that an interval carries are marked.

    Args:
        found: The findings.
        first: Network and protocol of those that stand open; the others are folded.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for f in found:
        groups.setdefault((f.network, f.protocol), []).append(f)
    out = ""
    for place, group in sorted(groups.items(), key=lambda item: item[0] != first):
        items = "".join(
            f'<li class="{"shown" if f.shown else "open"}">{escape(f.text)}</li>' for f in group
        )
        head = escape(f"{place[0]}, {protocol_words(place[1])}")
        body = f'<ul class="findings">{items}</ul>'
        if place == first:
            out += f"<h4>{head}</h4>{body}" if len(groups) > 1 else body
        else:
            out += f"<details><summary>{head}</summary>{body}</details>"
    return out


def plain_heading(text: str) -> str:
    """A heading without a place in the table of contents."""
    return f'<p class="heading">{escape(text)}</p>'


def paragraphs(texts: Iterable[str]) -> str:
    """Each text as a paragraph."""
    return "".join(f"<p>{escape(t)}</p>" for t in texts)
