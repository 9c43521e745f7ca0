"""From run folders to the report's files: read, compute, draw, write."""

import io
from collections.abc import Mapping, Sequence

import pyarrow.csv

from raygrad import __version__
from raygrad.errors import ConfigError
from raygrad.report.audit_page import write_audit_page
from raygrad.report.chapter import run_chapter, run_panels
from raygrad.report.compared import PLACE, TITLE, compared_chapter
from raygrad.report.figures.base import Figure
from raygrad.report.markup import slug, unique_slugs
from raygrad.report.opening import question
from raygrad.report.page import Chapter, render_page
from raygrad.report.style import Rendered, render
from raygrad.report.tables import Run, read_run
from raygrad.report.wording import listed
from raygrad.storage.files import join, write_bytes


def write_report(run_urls: Sequence[str], out_url: str | None = None) -> str:
    """Writes ``index.html`` and ``figures/*`` from the tables of one or more runs.

    Nothing is trained or scored, and nothing that is missing stops it: a figure whose input is not
    there is left out, and the page says why.

    Args:
        run_urls: Run folders, local or ``s3://``. Several give one page that compares them.
        out_url: Where to write. By default ``<run>/report`` of the only run, and
            ``<first run>/report/compared`` of several.

    Returns:
        The URL of ``index.html``.

    Raises:
        ConfigError: There is no run folder, or one holds nothing of a run; or two figures would
            have one name.
    """
    if not run_urls:
        raise ConfigError("A report needs at least one run folder, got none. Name one or more.")
    runs = _named([read_run(url) for url in run_urls])
    out = out_url or join(runs[0].url, "report", *(["compared"] if len(runs) > 1 else []))
    panels = [run_panels(run) for run in runs]
    if len(runs) == 1:
        chapters = [run_chapter(runs[0], panels[0])]
    else:
        places = unique_slugs([run.name for run in runs], [PLACE, slug(TITLE)])
        chapters = [compared_chapter(runs, panels)]
        chapters += [run_chapter(*of) for of in zip(runs, panels, places, strict=True)]
    _check_names(chapters)
    rendered = {
        f.name: render(f.draw, phone=f.markup is None)
        for chapter in chapters
        for f in chapter.figures()
    }
    _write_figures(join(out, "figures"), chapters, rendered)
    names = listed([run.name for run in runs])
    html = render_page(
        question(runs, names),
        chapters,
        rendered,
        f"Made by raygrad {__version__} from {listed([run.url for run in runs])}.",
    )
    if len(runs) == 1:
        write_audit_page(runs[0], out)
    index_url = join(out, "index.html")
    write_bytes(index_url, html.encode("utf-8"))
    return index_url


def _named(runs: Sequence[Run]) -> list[Run]:
    """The runs with names that differ, so that files, anchors and legends can tell them apart."""
    names = [run.name for run in runs]
    out: list[Run] = []
    for i, run in enumerate(runs):
        name = run.name
        if names.count(name) > 1:
            folder = run.url.rstrip("/").rpartition("/")[2]
            name = f"{name} ({folder})" if folder != name else name
        if name in [r.name for r in out]:
            name = f"{name} {i + 1}"
        out.append(run.renamed(name))
    return out


def _check_names(chapters: Sequence[Chapter]) -> None:
    """Sees that no figure's files and drawing would be those of another."""
    names = [figure.name for chapter in chapters for figure in chapter.figures()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"figures of a page must have names that differ, got {twice[0]!r} twice, of "
            f"{listed([chapter.title for chapter in chapters])}. Report these runs one by one."
        )


def _write_figures(url: str, chapters: Sequence[Chapter], rendered: Mapping[str, Rendered]) -> None:
    for chapter in chapters:
        for figure in chapter.figures():
            drawn = rendered[figure.name]
            write_bytes(join(url, f"{figure.name}.png"), drawn.png)
            write_bytes(join(url, f"{figure.name}.svg"), drawn.wide_svg.encode("utf-8"))
            write_bytes(join(url, f"{figure.name}.csv"), _csv(figure))


def _csv(figure: Figure) -> bytes:
    out = io.BytesIO()
    pyarrow.csv.write_csv(figure.table, out)
    return out.getvalue()
