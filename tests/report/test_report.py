"""The report of a run folder, whole, with parts missing, broken or old."""

import csv
import json
import re
import shutil
import struct
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.errors import ConfigError
from raygrad.report import write_report
from raygrad.report.tables import read_run
from raygrad.runs.journal import Entry
from tests.report import study

EVERY_FIGURE = (
    "accuracy",
    "gain",
    "images",
    "suspects",
    "hardest",
    "top-sample",
    "entropy",
    "overlap",
    "correlation",
    "attributes",
    "classes",
    "heatmap",
    "bound",
    "cost",
    "concentration",
    "cartography",
    "corners",
    "agreement",
    "kept-classes",
)


def rows_of(report_url: str, figure: str) -> list[dict[str, str]]:
    path = Path(report_url).parent / "figures" / f"{figure}.csv"
    return list(csv.DictReader(path.read_text().splitlines()))


def text_of(url: str) -> str:
    return Path(url).read_text()


def caption(page: str, figure: str) -> str:
    found = re.search(rf'id="figure-{figure}".*?<figcaption>(.*?)<span', page, re.DOTALL)
    assert found, f"no figure {figure}"
    return found.group(1)


@pytest.fixture
def copied(small_run_folder, drawn_once, tmp_path) -> Path:
    """A small run's tables without its shards, to be damaged; its report is all but pictures."""
    out = tmp_path / "copied"
    shutil.copytree(small_run_folder, out, ignore=shutil.ignore_patterns("*.tar", "report"))
    return out


def test_every_figure_is_there_as_png_svg_and_csv(report_url):
    page = text_of(report_url)
    folder = Path(report_url).parent / "figures"
    for name in EVERY_FIGURE:
        png = (folder / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert width == 1520
        assert height > 200
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
        assert rows_of(report_url, name)
        assert caption(page, name)


def test_the_page_asks_nothing_of_the_network(report_url):
    page = text_of(report_url)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(a.startswith(("#", "data:", "figures/")) for a in addresses)
    assert "@import" not in page
    assert "url(http" not in page


def test_the_same_tables_give_the_same_bytes(run_folder, report_url, tmp_path):
    again = Path(write_report([str(run_folder)], str(tmp_path)))
    first = Path(report_url).parent
    for path in sorted(p for p in first.rglob("*") if p.is_file()):
        assert (again.parent / path.relative_to(first)).read_bytes() == path.read_bytes(), path.name


def test_accuracy_csv_holds_the_means_of_the_results(report_url, run_folder):
    table = pq.read_table(run_folder / "sweep" / "results.parquet").to_pandas()
    rows = [r for r in rows_of(report_url, "accuracy") if r["method"] != "full data"]
    assert len(rows) == 2 * 2 * 4 * 4
    for r in rows:
        at = table[
            (table.network == r["network"])
            & (table.protocol == r["protocol"])
            & (table.method == r["method"])
            & (table.keep_fraction == float(r["keep_fraction"]))
        ]
        assert float(r["mean"]) == pytest.approx(at.test_accuracy.mean(), abs=1e-12)


def test_the_accuracy_caption_names_the_full_accuracy_and_its_interval(report_url, run_folder):
    table = pq.read_table(run_folder / "sweep" / "results.parquet").to_pandas()
    text = caption(text_of(report_url), "accuracy")
    for network in study.NETWORKS:
        full = table[(table.network == network) & (table.keep_fraction == 1.0)].test_accuracy
        half = 4.302652729696142 * max(full.std(ddof=1), 1 / 360 / np.sqrt(12)) / np.sqrt(3)
        low, high = (100 * end for end in (full.mean() - half, min(full.mean() + half, 1)))
        ends = f"({low:.2f} to {high:.2f}) ({network}, equal epochs)"
        assert f"{100 * full.mean():.2f}% {ends}" in text


def test_the_heatmap_is_the_probe_sorted_by_its_final_norm(report_url, run_folder):
    rows = [r for r in rows_of(report_url, "heatmap") if r["network"] == "linear"]
    probe = pq.read_table(run_folder / "train" / "linear" / "probe.parquet").to_pandas()
    values = {
        (k, e): v for k, e, v in zip(probe.key, probe.epoch, probe[study.COLUMN], strict=True)
    }
    assert len(rows) == len(values)
    for r in rows:
        assert float(r[study.COLUMN]) == values[r["key"], int(r["epoch"])]
    last = [float(r[study.COLUMN]) for r in rows if int(r["epoch"]) == study.EPOCHS]
    assert last == sorted(last)
    low, high = np.percentile(last, [10, 90])
    assert f"{high / low:.3g} times after epoch {study.EPOCHS}" in caption(
        text_of(report_url), "heatmap"
    )
    assert "Dashed lines mark decays" in caption(text_of(report_url), "heatmap")


def test_the_bounds_correlation_is_within_the_epoch_not_over_training(report_url, run_folder):
    bound = pq.read_table(run_folder / "train" / "linear" / "bound.parquet").to_pandas()
    last = bound[bound.epoch == bound.epoch.max()]
    r = np.corrcoef(last.sum_of_norms, last.norm_of_sum)[0, 1]
    text = caption(text_of(report_url), "bound")
    assert f"at epoch {study.EPOCHS} the correlation over 20 batches is {r:.2f}" in text
    ratio = (bound.norm_of_sum / bound.sum_of_norms).median()
    assert f"the norm of the sum is {ratio:.2f} of the bound" in text


def test_the_grid_goes_from_the_largest_score_to_the_smallest(report_url, run_folder):
    rows = rows_of(report_url, "images")
    scores = [float(r[study.COLUMN]) for r in rows]
    assert scores == sorted(scores, reverse=True)
    parts = (run_folder / "scores" / "features").glob("part-*.parquet")
    values = pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()
    assert scores[0] == values[study.COLUMN].max()
    assert scores[-1] == values[study.COLUMN].min()
    hardest = values.sort_values(study.COLUMN, ascending=False).head(10)
    wrong = int((hardest.label != hardest.prediction).sum())
    assert f"Of the 10 hardest shown, {wrong} are classified wrongly" in caption(
        text_of(report_url), "images"
    )


def test_label_entropy_is_counted_from_the_labels_of_a_full_sort(report_url, run_folder):
    rows = rows_of(report_url, "entropy")
    for network in study.NETWORKS:
        parts = (run_folder / "scores" / network).glob("part-*.parquet")
        values = pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()
        labels = values.sort_values(study.COLUMN, ascending=False).label.to_numpy()
        mine = [r for r in rows if r["curve"] == network]
        assert int(mine[0]["k"]) == 1
        assert int(mine[-1]["k"]) == len(labels)
        for r in mine:
            share = np.bincount(labels[: int(r["k"])]) / int(r["k"])
            expected = -sum(p * np.log2(p) for p in share if p > 0)
            assert float(r["entropy_bits"]) == pytest.approx(expected, abs=1e-9)
    baseline = {int(r["k"]): float(r["entropy_bits"]) for r in rows if "balanced" in r["curve"]}
    assert baseline[1] == 0
    assert baseline[max(baseline)] == pytest.approx(np.log2(10), abs=1e-3)
    for k in (2, 7):
        assert baseline[k] == pytest.approx(np.log2(k))


def test_overlap_is_that_of_the_sets_of_two_full_sorts(report_url, run_folder):
    order = {}
    for network in study.NETWORKS:
        parts = (run_folder / "scores" / network).glob("part-*.parquet")
        values = pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()
        order[network] = values.sort_values(study.COLUMN, ascending=False).key.tolist()
    rows = rows_of(report_url, "overlap")
    curve = [r for r in rows if r["curve"] == "features and linear"]
    for r in curve:
        k = int(r["k"])
        common = set(order["features"][:k]) & set(order["linear"][:k])
        assert float(r["overlap"]) == pytest.approx(len(common) / k, abs=1e-12)
    size = len(order["linear"])
    for r in rows:
        if r["curve"] == "two random sets":
            assert float(r["overlap"]) == pytest.approx(int(r["k"]) / size)


def test_class_quantiles_are_numpys(report_url, run_folder):
    parts = (run_folder / "scores" / "features").glob("part-*.parquet")
    values = pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()
    rows = rows_of(report_url, "classes")
    assert len(rows) == 10
    for r in rows:
        mine = values[values.label == int(r["label"])][study.COLUMN]
        assert int(r["n"]) == len(mine)
        for q in (5, 25, 50, 75, 95):
            assert float(r[f"q{q:02d}"]) == pytest.approx(np.percentile(mine, q), rel=1e-12)
    medians = [float(r["q50"]) for r in rows]
    assert medians == sorted(medians, reverse=True)


def test_the_top_samples_caption_names_the_class_most_over_represented(report_url, run_folder):
    parts = (run_folder / "scores" / "linear").glob("part-*.parquet")
    values = pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()
    top = values.sort_values(study.COLUMN, ascending=False).head(int(0.05 * len(values)))
    share = top.label.value_counts(normalize=True).reindex(range(10), fill_value=0)
    usual = values.label.value_counts(normalize=True).reindex(range(10), fill_value=0)
    label = int((share - usual).idxmax())
    said = re.search(
        r"of linear's, ([\d.]+)% are of class (\d), which is ([\d.]+)% of all",
        caption(text_of(report_url), "top-sample").replace("&#x27;", "'"),
    )
    assert int(said[2]) == label
    assert float(said[1]) == pytest.approx(100 * share[label], rel=0.01)
    assert float(said[3]) == pytest.approx(100 * usual[label], rel=0.01)
    shown = [r["key"] for r in rows_of(report_url, "top-sample") if r["network"] == "linear"]
    assert set(shown) <= set(top.key)


def test_suspects_are_the_wrongly_classified_of_the_largest_loss(report_url, run_folder):
    parts = (run_folder / "scores" / "features").glob("part-*.parquet")
    values = pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()
    wrong = values[values.label != values.prediction].sort_values("loss", ascending=False)
    got = [r["key"] for r in rows_of(report_url, "suspects")]
    assert got[:20] == wrong.key.head(20).tolist(), "those by aum come after them"
    assert f"the label of {len(wrong)} of {len(values):,}" in caption(
        text_of(report_url), "suspects"
    )


def test_what_is_missing_leaves_its_figure_out_and_says_why(copied):
    for gone in ("train/linear/probe.parquet", "train/linear/bound.parquet", "data/index.parquet"):
        (copied / gone).unlink()
    shutil.rmtree(copied / "sweep")
    url = write_report([str(copied)])
    page = text_of(url)
    for figure, said in (
        ("heatmap", "kept no probe"),
        ("bound", "measured no batches"),
        ("accuracy", "There is no sweep yet"),
        ("hardest", "at least two networks"),
        ("images", "No image could be read"),
    ):
        assert said in page
        assert f'id="figure-{figure}"' not in page
        assert not (Path(url).parent / "figures" / f"{figure}.png").exists()
    assert 'id="figure-classes"' in page


def test_the_scores_of_a_networks_dynamics_are_no_second_network(copied):
    """Training writes scores/<network>-dynamics beside the network's own scores."""
    (network,) = read_run(str(copied)).scores
    (copied / "train" / network / "dynamics.parquet").unlink(missing_ok=True)
    beside = copied / "scores" / f"{network}-dynamics"
    shutil.copytree(copied / "scores" / network, beside)
    run = read_run(str(copied))
    assert list(run.scores) == [network]
    assert run.dynamics[network]["key"].equals(run.scores[network].table["key"])
    kept = pa.table({"key": ["a"], "aum": [0.5]})
    pq.write_table(kept, copied / "train" / network / "dynamics.parquet")
    assert read_run(str(copied)).dynamics[network].equals(kept)
    shutil.rmtree(copied / "scores" / network)
    shutil.rmtree(copied / "train")
    assert list(read_run(str(copied)).scores) == [beside.name]


def test_broken_files_are_named_and_the_rest_is_reported(copied):
    broken = ("probe.parquet", "metrics.json")
    for name in broken:
        (copied / "train" / "linear" / name).write_bytes(b"not what it should be")
    shutil.rmtree(copied / "scores")
    page = text_of(write_report([str(copied)]))
    for name in broken:
        assert f"train/linear/{name} is no" in page
    assert "There are no scores yet" in page
    assert 'id="figure-accuracy"' in page


def test_wall_times_are_those_of_all_starts_by_stage_and_together(copied):
    """Two trainings, one of them killed; a sweep that ran for 5 s beside the second."""
    (copied / "journal").mkdir()
    starts = [(100, 10, "train", "running"), (200, 20, "train", "complete")]
    starts.append((205, 25.5, "sweep", "complete"))
    for started_s, seconds, stage, outcome in starts:
        entry = Entry(stage, started_s, seconds, outcome, str(started_s), "0.1.0")
        (copied / "journal" / f"{started_s}.json").write_text(json.dumps(asdict(entry)))
    page = text_of(write_report([str(copied)]))
    shown = page.partition("Wall time of each stage")[2].partition("</table>")[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells == ["train", "2", "1", "30.0", "sweep", "1", "0", "25.5", "all", "3", "1", "40.5"]
    (copied / "journal" / "100.json").write_text("{}")
    assert "The journal could not be read" in text_of(write_report([str(copied)]))


def test_one_seed_draws_curves_without_bands_and_concludes_nothing(copied):
    path = copied / "sweep" / "results.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pa.array([s == 0 for s in table["seed"].to_pylist()])), path)
    url = write_report([str(copied)])
    assert "With one seed a point there is no interval" in text_of(url)
    assert "one seed, so no interval" in caption(text_of(url), "accuracy")
    assert all(r["low"] in ("nan", "") for r in rows_of(url, "accuracy"))


def test_an_old_run_folder_still_opens(copied):
    """Before protocols, separate seeds, predictions and data set facts were recorded."""
    path = copied / "sweep" / "results.parquet"
    keep = ["network", "method", "keep_fraction", "seed", "test_accuracy"]
    table = pq.read_table(path)
    table = table.filter(pa.array([p == "equal_epochs" for p in table["protocol"].to_pylist()]))
    pq.write_table(table.select(keep), path)
    for part in copied.glob("scores/*/part-*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(["prediction", "correct", "el2n"]), part)
    for path in copied.glob("train/*/metrics.json"):
        metrics = json.loads(path.read_text())
        del metrics["history"], metrics["num_test"]
        path.write_text(json.dumps(metrics))
    for path in ("data/shards/dataset.json", "data/rejects.parquet", "config.json"):
        (copied / path).unlink()
    page = text_of(write_report([str(copied)]))
    for name in ("accuracy", "gain", "classes", "heatmap"):
        assert f'id="figure-{name}"' in page
    assert "The sweep recorded no training times" in page


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="A report needs a run folder with results in it, got"):
        write_report([str(tmp_path)])
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_report([])


def test_text_from_the_data_is_shown_as_text(copied):
    """Class names and keys come from other people's files; none becomes markup or mathematics."""
    path = copied / "data" / "shards" / "dataset.json"
    facts = json.loads(path.read_text())
    nasty = "<script>alert(1)</script>"
    path.write_text(json.dumps(facts | {"name": nasty, "classes": [nasty, "a$_^$b"] * 5}))
    rejects = pa.table({"shard": [nasty], "key": [nasty], "reason": [nasty]})
    pq.write_table(rejects, copied / "data" / "rejects.parquet")
    assert nasty not in text_of(write_report([str(copied)]))


@pytest.mark.parametrize(
    ("share", "value", "note"),
    [
        (0.01, float("nan"), "are NaN and are left out"),
        (0.01, float("-inf"), ""),
        (1.0, float("nan"), f"No {study.COLUMN} of linear is a number"),
        (1.0, float("inf"), "so the report goes on without it"),
    ],
)
def test_scores_that_are_no_numbers_leave_a_report_and_a_note(copied, share, value, note):
    """A few of them, or all: a checkpoint with a NaN gives such a table."""
    for path in copied.glob("scores/linear/part-*.parquet"):
        table = pq.read_table(path)
        metadata = table.schema.metadata
        for at, column in enumerate(table.schema):
            if pa.types.is_floating(column.type):
                values = table[column.name].to_numpy().copy()
                values[: max(1, round(share * len(values)))] = value
                table = table.set_column(at, column, pa.array(values, column.type))
        pq.write_table(table.replace_schema_metadata(metadata), path)
    assert note in text_of(write_report([str(copied)]))
