"""Which training images pull the loss of an image: what `raygrad influence` found, as pictures."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.errors import DataError
from raygrad.report.figures.images import Example, strip
from raygrad.report.markup import plain_heading
from raygrad.report.page import Section
from raygrad.report.tables import Run
from raygrad.report.thumbnails import Thumbnail
from raygrad.report.wording import count
from raygrad.runs.influence_tables import INFLUENCE, is_current
from raygrad.runs.layout import RunLayout
from raygrad.storage import files

MOST = 24
"""Images whose pull is shown."""

EACH = 5
"""Training images that are shown at each end."""

LIMITS = (
    "Influence is the inner product of last-layer gradients, summed over the checkpoints that were "
    "kept (TracIn-CP, last layer; Pruthi et al. 2020): above 0, a step on the training image "
    "lowers the loss. What earlier layers learned from an image is not in it, and images of large "
    "gradient, wrong labels among them, pull many."
)


@dataclass(frozen=True)
class Pull:
    """What pulls one image's loss."""

    query: str
    """Its key."""
    rows: pa.Table
    """key, label_name and influence of both ends, those that lower its loss most first."""

    @property
    def keys(self) -> list[str]:
        """The keys of the training images that are shown."""
        lowering, raising = self.ends()
        return [*lowering["key"].to_pylist(), *raising["key"].to_pylist()]

    def ends(self) -> tuple[pa.Table, pa.Table]:
        """Returns those that lower its loss most, and those that raise it most."""
        values = self.rows["influence"]
        lowering = self.rows.filter(pc.greater(values, 0)).slice(0, EACH)
        raising = self.rows.filter(pc.less(values, 0))
        return lowering, raising.slice(max(raising.num_rows - EACH, 0)).take(
            pa.array(range(min(raising.num_rows, EACH))[::-1], pa.int64())
        )


def read_pulls(run: Run) -> tuple[list[Pull], int]:
    """Reads what is below `<run>/influence/`, and how many images there are in all.

    Args:
        run: The run.

    Returns:
        At most `MOST`, in the order of their files' names, and the number of files; those of other
        data or another network than the run's are left out.
    """
    urls, _ = _current(run)
    found = []
    for url in urls[:MOST]:
        with _readable(url), files.open_input(url) as stream:
            rows = pq.read_table(stream)
        if rows.num_rows:
            found.append(Pull(str(rows["query"][0].as_py()), rows))
    return found, len(urls)


def _current(run: Run) -> tuple[list[str], int]:
    """Returns the files that are of the run's data and network, and how many are not."""
    urls = files.list_files(files.join(run.url, INFLUENCE), ".parquet")
    layout, current = RunLayout(run.url), []
    for url in urls:
        with _readable(url):
            current += [url] if is_current(layout, url) else []
    return current, len(urls) - len(current)


@contextlib.contextmanager
def _readable(url: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"a table of influences must be readable, got {error} in {url}. "
            "Make it again: raygrad influence."
        ) from error


def pulled_section(
    run: Run, pulls: Sequence[Pull], total: int, thumbnails: Mapping[str, Thumbnail]
) -> Section:
    """Returns the images with the training images that pull them, empty where there are none.

    Args:
        run: The run.
        pulls: What was read.
        total: How many images influence was found of.
        thumbnails: Pictures by key.
    """
    outdated = _current(run)[1]
    left_out = (
        f"Left out: {count(outdated)} that {'is' if outdated == 1 else 'are'} of other data or "
        "another network than the run's now. Ask again: raygrad influence."
    )
    notes = [left_out] if outdated else []
    if not pulls:
        return Section("What pulls a loss", intro=notes)
    shown = f"{count(len(pulls))} of {count(total)}" if len(pulls) < total else count(total)
    said = f"Of {shown} images that raygrad influence was asked about."
    labels = _labels(run, [pull.query for pull in pulls])
    parts = [_markup(pull, labels.get(pull.query, ""), thumbnails) for pull in pulls]
    return Section("What pulls a loss", intro=[said, LIMITS, *notes], parts=parts)


def _labels(run: Run, keys: Sequence[str]) -> dict[str, str]:
    if run.index is None:
        return {}
    examples = run.index.examples
    rows = examples.filter(pc.is_in(examples["key"], value_set=pa.array(keys, pa.string())))
    names = (run.class_name(label) for label in rows["label"].to_pylist())
    return dict(zip(rows["key"].to_pylist(), names, strict=True))


def _markup(pull: Pull, label: str, thumbnails: Mapping[str, Thumbnail]) -> str:
    own = thumbnails.get(pull.query)
    picture = (
        "" if own is None else f'<img class="pixels" width="64" src="{own.data_uri}" alt="'
        f'{escape(pull.query)}: class {escape(label)}">'
    )  # fmt: skip
    parts = [plain_heading(f"{pull.query}, class {label}"), f"<p>{picture}</p>"]
    for words, rows in zip(("lower its loss most", "raise it most"), pull.ends(), strict=True):
        examples = [
            Example(row["key"], row["label_name"], None, row["influence"], words)
            for row in rows.to_pylist()
        ]
        if examples:
            parts.append(f'<p class="note">Training images that {words}:</p>')
            parts.append(strip(examples, thumbnails, "ten"))
    return "".join(parts)
