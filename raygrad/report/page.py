"""The page: one self-contained HTML file from figures, findings and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

from raygrad.report.figures.base import Drawn, Figure, Missing
from raygrad.report.markup import inline_svg, paragraphs, slug
from raygrad.report.style import Rendered


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading, and its name in the table of contents.
        intro: A few sentences under the heading.
        parts: Figures, and pieces of HTML, in order.
    """

    title: str
    intro: Sequence[str] = ()
    parts: Sequence[Drawn | str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Chapter:
    """What the page says of one run, or of several together.

    Attributes:
        title: The run's name.
        lead: Its findings in a sentence or two.
        facts: Names and values of its key figures.
        sections: Its parts; those without content are left out.
        opening: What stands above them, beside the findings: the main figure and images.
        place: Its element id on a page of several; by default of its title.
    """

    title: str
    lead: Sequence[str]
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    opening: Sequence[Drawn | str] = ()
    place: str = ""

    @property
    def anchor(self) -> str:
        """Its element id, and what those of its sections begin with."""
        return self.place or slug(self.title)

    def _parts(self) -> list[Drawn | str]:
        return [*self.opening, *(p for s in self.sections for p in s.parts)]

    def figures(self) -> list[Figure]:
        """All figures that are drawn, in order."""
        return [p for p in self._parts() if isinstance(p, Figure)]

    def missing(self) -> list[Missing]:
        """All figures that are left out, each once."""
        return list({p.name: p for p in self._parts() if isinstance(p, Missing)}.values())


def _asset(name: str) -> str:
    return (files("raygrad.report") / "assets" / name).read_text(encoding="utf-8")


def _drawing(figure: Figure, rendered: Rendered) -> str:
    if figure.markup is not None:
        return figure.markup
    return "".join(
        inline_svg(svg, f"{figure.name}-{width}", figure.alt, f"plot {width}")
        for svg, width in ((rendered.wide_svg, "wide"), (rendered.narrow_svg, "narrow"))
    )


def _files(figure: Figure) -> str:
    return ", ".join(
        f'<a href="figures/{figure.name}.{kind}">{kind.upper()}</a>'
        for kind in ("png", "svg", "csv")
    )


def _figure(figure: Figure, rendered: Rendered, level: int) -> str:
    return (
        f'<figure id="figure-{escape(figure.name)}">'
        f"<h{level}>{escape(figure.title)}</h{level}>"
        f"{_drawing(figure, rendered)}"
        f'<figcaption>{escape(figure.caption)} <span class="files">{_files(figure)}</span>'
        "</figcaption></figure>"
    )


def _part(part: Drawn | str, rendered: Mapping[str, Rendered], level: int) -> str:
    if isinstance(part, str):
        return part
    # What is missing stands together, at the end: a page of scores alone is whole without it.
    return "" if isinstance(part, Missing) else _figure(part, rendered[part.name], level)


def _opening(chapter: Chapter, rendered: Mapping[str, Rendered], level: int) -> str:
    """The findings with the figure that carries them; the figure's caption is folded."""
    parts = "".join(
        part if isinstance(part, str) else _opening_figure(part, rendered, level)
        for part in chapter.opening
        if not isinstance(part, Missing)
    )
    head = _lead(chapter.lead)
    return f'{head}<div class="opening">{parts}</div>' if parts else head


def _opening_figure(figure: Figure, rendered: Mapping[str, Rendered], level: int) -> str:
    return (
        f'<figure id="figure-{escape(figure.name)}">'
        f"<h{level}>{escape(figure.title)}</h{level}>{_drawing(figure, rendered[figure.name])}"
        f"<details><summary>How to read it</summary><figcaption>{escape(figure.caption)} "
        f'<span class="files">{_files(figure)}</span></figcaption></details></figure>'
    )


def _left_out(chapter: Chapter, level: int, prefix: str) -> str:
    missing = chapter.missing()
    if not missing:
        return ""
    items = "".join(f"<li><b>{escape(m.title)}</b>: {escape(m.reason)}</li>" for m in missing)
    return (
        f'<section id="{prefix}not-shown"><h{level}>Not shown</h{level}>'
        f'<ul class="note missing">{items}</ul></section>'
    )


def _section(section: Section, rendered: Mapping[str, Rendered], level: int, prefix: str) -> str:
    body = "".join(_part(p, rendered, level + 1) for p in section.parts)
    return (
        f'<section id="{prefix}{slug(section.title)}"><h{level}>{escape(section.title)}</h{level}>'
        f"{paragraphs(section.intro)}{body}</section>"
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    if not facts:
        return ""
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{items}</dl>'


def _lead(lead: Sequence[str]) -> str:
    return "".join(f'<p class="lead">{escape(text)}</p>' for text in lead)


def _summary(chapter: Chapter) -> str:
    """A chapter's first finding with its name, for the head of a page of several."""
    if not chapter.lead:
        return ""
    return f'<p class="lead"><b>{escape(chapter.title)}.</b> {escape(chapter.lead[0])}</p>'


def _shown(chapter: Chapter) -> list[Section]:
    return [s for s in chapter.sections if s.intro or any(_has_content(p) for p in s.parts)]


def _has_content(part: Drawn | str) -> bool:
    return bool(part) and not isinstance(part, Missing)


def _chapter(chapter: Chapter, rendered: Mapping[str, Rendered]) -> str:
    name = chapter.anchor
    # A slug holds no two hyphens: no section's id is that of another chapter.
    body = "".join(_section(s, rendered, 3, f"{name}--") for s in _shown(chapter))
    return (
        f'<article id="{name}"><h2 class="chapter">{escape(chapter.title)}</h2>'
        f"{_opening(chapter, rendered, 3)}{_facts(chapter.facts)}{body}"
        f"{_left_out(chapter, 3, f'{name}--')}</article>"
    )


def render_page(
    title: str, chapters: Sequence[Chapter], rendered: Mapping[str, Rendered], footer: str
) -> str:
    """The whole page as text; everything it needs is in it.

    Args:
        title: The heading.
        chapters: One a run; a single one's sections become the page's.
        rendered: The drawings of the figures, by name.
        footer: What made the page.
    """
    if len(chapters) == 1:
        only = chapters[0]
        head = _opening(only, rendered, 2) + _facts(only.facts)
        places = [(slug(s.title), s.title) for s in _shown(only)]
        body = "".join(_section(s, rendered, 2, "") for s in _shown(only))
        body += _left_out(only, 2, "")
    else:
        head = "".join(_summary(c) for c in chapters)
        places = [(c.anchor, c.title) for c in chapters]
        body = "".join(_chapter(c, rendered) for c in chapters)
    toc = "".join(f'<li><a href="#{at}">{escape(text)}</a></li>' for at, text in places)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>\n{_asset('page.css')}</style></head><body>"
        '<a class="skip" href="#main">Skip to the figures</a>'
        '<header class="top"><div class="eyebrow"><span>raygrad report</span>'
        '<button type="button" class="theme">light or dark</button></div>'
        f"<h1>{escape(title)}</h1>{head}</header>"
        f'<nav class="toc" aria-label="Contents"><ul>{toc}</ul></nav>'
        f'<main id="main">{body}</main><footer>{escape(footer)}</footer>'
        f"<script>\n{_asset('page.js')}</script><script>\n{_asset('browser.js')}</script>"
        "</body></html>\n"
    )
