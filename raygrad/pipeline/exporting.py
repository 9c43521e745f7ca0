"""What a run knows of its examples, as other tools read it: scores, subsets, exports."""

import logging

import pyarrow as pa
import pyarrow.compute as pc

from raygrad.config import StudyConfig
from raygrad.data.cleanlab_format import write_cleanlab
from raygrad.data.export_formats import write_class_folders, write_fiftyone, write_huggingface
from raygrad.data.file_names import file_names, folder_of
from raygrad.data.index import Index, read_index
from raygrad.data.reading import rows_of_keys
from raygrad.data.table_formats import format_of, write_as
from raygrad.errors import ConfigError
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import read_score_table
from raygrad.runs.subsets import read_subset
from raygrad.storage import files

log = logging.getLogger("raygrad")

_WRITERS = {
    "folders": write_class_folders,
    "huggingface": write_huggingface,
    "fiftyone": write_fiftyone,
}
_WITHOUT_COLUMNS = ("folders",)


def score_rows(config: StudyConfig, network: str | None = None) -> pa.Table:
    """Returns a run's scores with all that is known of each example.

    Columns: key, file (with its ending), shard, split, label, label_name; predicted and
    predicted_name where the network's prediction is known; then every score.

    Args:
        config: The run.
        network: The network that scored; by default the run's.

    Raises:
        ConfigError: There is no complete score table of this network.
    """
    layout = RunLayout(config.run)
    index = read_index(layout.data)
    scores = read_score_table(layout.scores(network or config.scored_network))
    rows = rows_of_keys(index, scores["key"].to_pylist())
    columns = {
        "key": scores["key"],
        "file": pa.array(file_names(index, rows, folder_of(config.data)), pa.string()),
        "shard": scores["shard"],
        "split": rows["split"],
        "label": scores["label"],
        "label_name": _names(index, scores["label"]),
    }
    if "prediction" in scores.column_names:
        columns["predicted"] = scores["prediction"]
        columns["predicted_name"] = _names(index, scores["prediction"])
    left = (n for n in scores.column_names if n not in {*columns, "prediction"})
    return pa.table(columns | {name: scores[name] for name in left})


def write_scores(config: StudyConfig, out: str, network: str | None = None) -> None:
    """Writes the rows of `score_rows` to a .csv or .parquet file, or as CSV to standard output.

    Raises:
        ConfigError: The output's name asks for another format, or there is no table.
    """
    if format_of(out) == "txt":
        raise ConfigError(f"scores must go to .csv, .parquet or -, got {out!r}. Name another.")
    write_as(score_rows(config, network), out)


def write_subset_list(config: StudyConfig, subset_url: str, kind: str) -> str:
    """Writes which keys a subset keeps and which it drops, beside it; returns the file.

    A table has the columns key, kept, weight (0 where it is dropped); text has the kept keys in one
    file and the dropped in another, one a line.
    """
    index = read_index(RunLayout(config.run).data)
    subset, _ = read_subset(subset_url)
    keys = index.rows("train")["key"]
    at = pc.index_in(keys.cast(pa.string()), value_set=subset["key"].cast(pa.string()))
    kept = pc.is_valid(at)
    stem = subset_url.removesuffix(".parquet")
    if kind == "txt":
        write_as(pa.table({"key": keys.filter(pc.invert(kept))}), f"{stem}-dropped.txt")
        write_as(pa.table({"key": keys.filter(kept)}), f"{stem}-kept.txt")
        return f"{stem}-kept.txt"
    weights = pc.fill_null(subset["weight"].take(at), 0.0)
    url = f"{stem}-list.{kind}"
    write_as(pa.table({"key": keys, "kept": kept, "weight": weights}), url)
    return url


def export_as(
    config: StudyConfig, subset_url: str, out: str, kind: str, probabilities: str | None = None
) -> int:
    """Writes a subset for another tool, its scores beside it where there are any.

    Weights of a weighted draw are a column too, where the format has columns.

    Args:
        config: The run.
        subset_url: The subset's file.
        out: A folder that is empty or not there.
        kind: folders, huggingface, fiftyone or cleanlab.
        probabilities: For cleanlab, a table of out-of-sample probabilities.

    Returns:
        How many examples it has.
    """
    if kind not in (*_WRITERS, "cleanlab"):
        raise ConfigError(f"format must be one of {', '.join(_WRITERS)}, cleanlab, got {kind!r}.")
    if probabilities is not None and kind != "cleanlab":
        raise ConfigError(f"probabilities must be for cleanlab, got format {kind}. Leave them.")
    layout = RunLayout(config.run)
    index = read_index(layout.data)
    subset, _ = read_subset(subset_url)
    rows = rows_of_keys(index, subset["key"].to_pylist())
    url = layout.scores(config.scored_network)
    if files.exists(files.join(url, "_manifest.json")):
        scores = read_score_table(url)
        at = pc.index_in(rows["key"].cast(pa.string()), value_set=scores["key"].cast(pa.string()))
        for name in scores.column_names:
            if name not in rows.column_names:
                rows = rows.append_column(name, scores[name].take(at))
    if set(subset["weight"].to_pylist()) - {1.0}:
        if kind in _WITHOUT_COLUMNS:
            log.warning("export: %s hold no weights: those of the draw are left out", kind)
        else:
            rows = rows.append_column("weight", subset["weight"])
    if kind == "cleanlab":
        return write_cleanlab(index, rows, files.absolute(out), probabilities)
    return _WRITERS[kind](index, rows, files.absolute(out))


def _names(index: Index, labels: pa.ChunkedArray) -> pa.Array:
    names = pa.array(index.classes or [""], pa.string())
    known = pc.and_(pc.greater_equal(labels, 0), pc.less(labels, len(index.classes)))
    return names.take(pc.if_else(known, labels, None))
