"""What changed since a stage was complete: its files, the user's own code, raygrad itself.

A listing is compared with the one that was taken before the stage read anything; nothing is read
for it. What a run folder did not record, since it is older, is not held against it.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

from raygrad.config import DataConfig, StudyConfig
from raygrad.data.fingerprint import (
    Fingerprint,
    Seen,
    difference,
    fingerprint,
    named_fingerprint,
    source_fingerprint,
)
from raygrad.data.index import read_shard_table
from raygrad.errors import ConfigError, DataError
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json, write_json
from raygrad.storage.urls import expand
from raygrad.training.source_code import code_digest

log = logging.getLogger("raygrad")

FILE = "fingerprint.json"
"""In the run's data folder: the listings of its source and of its shards."""

CODE = "code.json"
"""In the folder of a sweep: digests of the code that its networks are retrained with."""

RESULTS: dict[str, tuple[int, str]] = {
    "score": (2, "the margin no longer saturates"),
    "audit": (3, "labels are ranked by tempered odds, and noise odds stand beside"),
    "sweep": (2, "trials of few epochs are validated more often"),
}
"""Stages whose results came out otherwise in older versions of raygrad: which version of them this
is, counted from 1, and what changed last. A change of results adds or raises an entry."""


def taken(data: DataConfig, seen: Seen | None = None) -> Fingerprint | None:
    """Lists what the stage prepare reads, before it does; None for a source without files.

    Args:
        data: What it reads.
        seen: The files that were looked at a moment ago, here and below.
    """
    if data.tars:
        urls = [*expand(data.tars), *_test_tars(data), *_label_table(data)]
        return named_fingerprint(urls, seen)
    if data.data_dir is None:
        return None
    return source_fingerprint(data.source, files.absolute(data.data_dir))


def record(layout: RunLayout, before: Fingerprint | None, *, is_written: bool) -> None:
    """Keeps the listing that was taken before, and one of the shards that were written.

    Args:
        layout: The run folder.
        before: What was listed; None for a source without files.
        is_written: Whether the run has shards of its own, and not the user's as they are.
    """
    # Of shards each is named, for there are far fewer than files of a source can be: nothing else
    # tells which of them changed, and which are new.
    listed = None if before is None else before.stored(all_named=not is_written)
    kept = {"source": listed, "shards": None} if is_written else {"source": None, "shards": listed}
    if is_written:
        written = fingerprint(_shards_by_name(layout))
        # A run folder may be moved or copied, which changes the times of its own shards.
        lasting = written if written.content() is not None else written.without_versions()
        kept["shards"] = lasting.stored(all_named=True)
    write_json(files.join(layout.data, FILE), kept)


def source_change(layout: RunLayout, data: DataConfig, seen: Seen | None = None) -> str | None:
    """Returns what changed of the files that the stage prepare read, None where nothing did.

    A data folder that is not there any more changes nothing where the run has shards of its own.
    """
    stored, is_written = _stored(layout, "source"), True
    if stored is None and data.tars:
        stored, is_written = _stored(layout, "shards"), False
    if stored is None:
        return None
    now = taken(data, seen)
    if now is None or (is_written and not now.states):
        return None
    found = difference(stored, now)
    where = " ".join(data.tars) if data.tars else f"data_dir {data.data_dir}"
    return None if found is None else f"{where}: {found}"


def shard_change(layout: RunLayout, data: DataConfig, seen: Seen | None = None) -> str | None:
    """Returns what changed of the shards that are indexed, None where nothing did."""
    stored = _stored(layout, "shards")
    if stored is None:
        return None
    if stored["files"] is None:
        log.warning(
            "prepare: whether the %s shards are as they were is not known: an older raygrad did "
            "not keep the names of so many. Index them into another --run to have it checked",
            f"{stored['num_files']:,}",
        )
        return None
    is_written = not data.tars or _stored(layout, "source") is not None
    by_name = _shards_by_name(layout) if is_written else {url: url for url in stored["files"]}
    now = fingerprint(by_name, seen)
    if not any(version for _, version in stored["files"].values()):
        now = now.without_versions()
    found = difference(stored, now)
    return None if found is None else f"indexed shards: {found}"


def new_shards(layout: RunLayout, data: DataConfig, seen: Seen | None = None) -> str | None:
    """Returns which shards are named now, are there, and are not indexed; None where none is."""
    stored = _stored(layout, "shards")
    is_written = not data.tars or _stored(layout, "source") is not None
    if stored is None or stored["files"] is None or is_written:
        return None
    try:
        now = taken(data, seen)
    except ConfigError:  # named relative to a folder that is not the current one
        return None
    new = [] if now is None else [url for url in now.states if url not in stored["files"]]
    if new:  # of a folder in a store an older raygrad listed the files right in it alone
        known = set(read_shard_table(layout.data)["source"].to_pylist())
        new = [url for url in new if url not in known]
    return f"{len(new):,} new (such as {new[0]})" if new else None


def _test_tars(data: DataConfig) -> list[str]:
    return expand(data.test_tars) if data.test_tars else []


def _label_table(data: DataConfig) -> list[str]:
    """Returns the table that labels stand in, where they stand in one."""
    table = re.match(r".*\.(csv|tsv|parquet)(?=:|$)", data.labels)
    return [] if table is None else [table[0]]


def refuse_changed_shards(config: StudyConfig, seen: Seen | None = None) -> None:
    """Raises ConfigError where shards are not those that were indexed, or more are named now."""
    layout, seen = RunLayout(config.run), seen or Seen()
    changed = shard_change(layout, config.data, seen) or new_shards(layout, config.data, seen)
    if changed is not None:
        raise changed_error("prepare", layout, changed)


def changed_error(stage: str, layout: RunLayout, what: str) -> ConfigError:
    """Returns the error for a stage whose inputs changed, with the choices there are."""
    choices = "Do the stage again (--redo), or name another --run."
    if stage == "prepare" and _only_grew(layout, what):
        extend = f"raygrad index --extend --run {layout.url}"
        choices = f"Go on with the new shards alone ({extend}), d{choices[1:]}"
    return ConfigError(
        f"stage {stage} must have the inputs it was completed with, got others in {layout.url}: "
        f"{what}. {choices}"
    )


def _only_grew(layout: RunLayout, what: str) -> bool:
    """Tells whether there are only more shards than before, and they are used as they are."""
    is_written = _stored(layout, "source") is not None
    kinds = re.findall(r"[\d,]+ (new|removed|changed) \(such as", what)
    return not is_written and kinds == ["new"]


def code_of(*names: str | None, start_from: str | None = None) -> dict[str, str]:
    """Returns the digest of the code behind each name that is a ``module:callable``.

    Args:
        names: Networks, losses.
        start_from: A file of weights that training begins with, whose content counts likewise.
    """
    found: dict[str, str | None] = {
        name: code_digest(name) for name in names if name is not None and ":" in name
    }
    if start_from is not None and files.exists(start_from):
        found[start_from] = digest(files.read_bytes(start_from))
    return {name: value for name, value in found.items() if value is not None}


def training_code(config: StudyConfig) -> dict[str, str]:
    """Returns the digests of all that training runs or begins with and that is the user's."""
    train = config.train
    return code_of(train.network, train.loss, start_from=train.start_from)


def refuse_changed_code(
    stage: str, layout: RunLayout, was: dict[str, str] | None, now: dict
) -> None:
    """Raises ConfigError where code is not what a stage was completed with."""
    for name in sorted((was or {}).keys() & now.keys()):
        if was and was[name] != now[name]:
            what = "content" if "/" in name or ":" not in name else "source code"
            raise changed_error(stage, layout, f"the {what} of {name} is another")


def check_sweep_code(
    layout: RunLayout, names: Sequence[str], start_from: str | None = None
) -> None:
    """Keeps the digests of the code that networks are retrained with, and compares with earlier.

    Args:
        layout: The run folder.
        names: The networks and the loss.
        start_from: The file of weights that retrainings begin with.

    Raises:
        ConfigError: The code or the weights are not those of the retrainings that are there.
    """
    now = code_of(*names, start_from=start_from)
    if not now:
        return
    url = files.join(layout.sweep, CODE)
    was = read_json(url) if files.exists(url) else {}
    refuse_changed_code("sweep", layout, was, now)
    if not now.items() <= was.items():
        write_json(url, {**was, **now})


def tell_of_older_results(stage: str, marker: dict[str, Any]) -> None:
    """Says where a stage was completed by a raygrad whose results came out otherwise."""
    kind = stage.split("-")[0]
    version, why = RESULTS.get(kind, (1, ""))
    if marker.get("results_version", 1) < version:
        log.warning(
            "%s: completed by an older raygrad, whose results differ: %s. They are kept; --redo "
            "does the stage again",
            stage,
            why,
        )


def _stored(layout: RunLayout, name: str) -> dict[str, Any] | None:
    url = files.join(layout.data, FILE)
    if not files.exists(url):
        return None
    try:
        return read_json(url)[name]
    except (DataError, KeyError) as error:
        raise ConfigError(
            f"the fingerprint of a run must be JSON of raygrad's, got {error!r} in {url}. "
            "Remove the file to go on without it."
        ) from error


def _shards_by_name(layout: RunLayout) -> dict[str, str]:
    shards = read_shard_table(layout.data)
    return dict(zip(shards["name"].to_pylist(), shards["url"].to_pylist(), strict=True))
