"""What the page says of scores and subsets, each against a count of its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygrad.report.figures.agreement import shared_tops
from raygrad.report.figures.cartography import cells_of, corners
from raygrad.report.figures.concentration import held_shares
from raygrad.report.figures.repeated import repeats_figure
from raygrad.report.figures.suspects import suspect_positions
from raygrad.report.kept import members, read_kept
from raygrad.report.repeats import find_repeats
from raygrad.report.tables import read_run
from tests.report import study
from tests.report.test_report import caption, text_of


@pytest.fixture(scope="module")
def run(run_folder):
    return read_run(str(run_folder))


def scores_of(run_folder: Path, network: str) -> pd.DataFrame:
    parts = sorted((run_folder / "scores" / network).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(p) for p in parts]).to_pandas()


def csv_of(report_url: str, figure: str) -> pd.DataFrame:
    return pd.read_csv(Path(report_url).parent / "figures" / f"{figure}.csv")


def test_the_concentration_is_the_share_of_a_full_sort(report_url, run_folder):
    values = np.sort(scores_of(run_folder, "features")[study.COLUMN].to_numpy())[::-1]
    for row in csv_of(report_url, "concentration").itertuples():
        expected = values[: row.k].astype(np.float64).sum() / values.astype(np.float64).sum()
        assert row.share_of_scores == pytest.approx(expected, rel=1e-9)
        assert row.share_of_examples == pytest.approx(row.k / len(values))


def test_scores_without_a_share_have_none():
    for values in ([-1.0, 2.0], [0.0, 0.0], [np.nan, np.inf], []):
        assert held_shares(np.array(values)) is None
    assert held_shares(np.array([3.0, np.nan, 1.0, np.inf])) == pytest.approx([0.75, 1.0])
    assert held_shares(np.full(4, 1e308))[-1] == 1.0


def test_shared_tops_are_those_of_two_sets(report_url, run_folder):
    table = scores_of(run_folder, "features").sort_values("key")
    drawn = csv_of(report_url, "agreement").set_index("score")
    for other in ("loss", "el2n", "entropy"):
        for share in (0.01, 0.05, 0.1):
            k = int(share * len(table))
            one = set(table.nlargest(k, study.COLUMN).key)
            two = set(table.nlargest(k, other).key)
            got = drawn.loc[other, f"top_{round(100 * share)}"]
            assert got == pytest.approx(len(one & two) / k)


def test_scores_of_some_examples_share_tops_among_those():
    main = np.arange(200.0)
    half = np.where(np.arange(200) % 2 == 0, main, np.nan)
    (row,) = shared_tops({"main": main, "half": half}, "main").to_pylist()
    assert row == {"score": "half", "rank_correlation": 1.0, "top_1": 1, "top_5": 1, "top_10": 1}


def test_the_map_counts_every_example_once():
    rng = np.random.default_rng(0)
    unsettled, loss = rng.random(5000), rng.lognormal(size=5000)
    cells = cells_of(unsettled, loss)
    assert cells.counts.sum() == 5000
    rows = cells.table().to_pandas()
    assert rows.examples.sum() == 5000
    some = rows.iloc[7]
    inside = (unsettled >= some.dyn_unc_from) & (unsettled < some.dyn_unc_to)
    inside &= (loss >= some.loss_from) & (loss < some.loss_to)
    assert inside.sum() == some.examples
    assert cells_of(unsettled, np.full(5000, 3.0)).counts.sum() == 5000


def test_the_corners_are_what_their_names_say(run, run_folder):
    table = run.scores["features"]
    dynamics = pq.read_table(run_folder / "train" / "features" / "dynamics.parquet").to_pandas()
    unsettled = dynamics.set_index("key").dyn_unc[table.table["key"].to_pylist()].to_numpy()
    loss = table.values("loss")
    hard, moved, easy = (positions for _, positions in corners(run, "features"))
    assert set(moved) == set(np.argsort(-unsettled, kind="stable")[:10])
    assert loss[hard].min() >= np.sort(loss)[-20]
    assert np.median(unsettled[hard]) < np.median(unsettled[np.argsort(-loss)[:20]])
    assert loss[easy].max() < np.median(loss)
    assert unsettled[easy].max() < np.median(unsettled)


def test_suspects_by_aum_are_those_of_the_largest(run, run_folder):
    dynamics = pq.read_table(run_folder / "train" / "features" / "dynamics.parquet").to_pandas()
    worst = dynamics[dynamics.aum > 0].sort_values("aum", ascending=False).key.head(20).tolist()
    named = dict(suspect_positions(run, "features", study.COLUMN))
    assert run.scores["features"].table["key"].take(named["aum"]).to_pylist() == worst
    assert list(named) == ["loss", "aum"]


def test_class_shares_are_counted_from_the_subsets_files(report_url, run_folder):
    table = scores_of(run_folder, "features").set_index("key").label
    usual = table.value_counts(normalize=True)
    drawn = csv_of(report_url, "kept-classes")
    assert len(drawn) == 4 * 4 * 10
    for row in drawn.iloc[::7].itertuples():
        files = [
            run_folder / "subsets" / f"{row.method}-{row.keep_fraction:g}-{seed}.parquet"
            for seed in (0, 1, 2)
        ]
        kept = pd.concat([pq.read_table(f).to_pandas() for f in files])
        share = (table[kept.key] == row.label).mean()
        assert row.ratio == pytest.approx(share / usual[row.label])


def test_members_are_counted_over_the_seeds(run, run_folder):
    kept = read_kept(run, "features")
    assert {(k.method, k.keep_fraction) for k in kept} == {
        (m, f) for m in study.METHODS for f in study.FRACTIONS if f < 1
    }
    shown = np.arange(0, 1200, 50)
    keys = run.scores["features"].table["key"].take(pa.array(shown)).to_pylist()
    for column, k in enumerate(kept):
        files = [
            set(pq.read_table(p)["key"].to_pylist())
            for p in (run_folder / "subsets").glob(f"{k.method}-{k.keep_fraction:g}-*.parquet")
        ]
        assert len(files) == len(k.seeds) == 3
        expected = [sum(key in f for f in files) for key in keys]
        assert [row[column] for row in members(kept, shown)] == expected


def test_a_damaged_or_foreign_subset_is_left_out(run, run_folder, tmp_path):
    (tmp_path / "subsets").mkdir()
    whole = next((run_folder / "subsets").glob("random-0.1-0.parquet"))
    (tmp_path / "subsets" / whole.name).write_bytes(whole.read_bytes())
    (tmp_path / "subsets" / "random-0.1-1.parquet").write_bytes(b"damaged")
    (tmp_path / "subsets" / "notes.parquet").write_bytes(b"not one")
    pq.write_table(pa.table({"key": ["nobody"]}), tmp_path / "subsets" / "random-1e-05-3.parquet")
    moved = type(run)(url=str(tmp_path), name="moved", scores=run.scores)
    (only,) = read_kept(moved, "features")
    assert (only.method, only.keep_fraction, only.seeds) == ("random", 0.1, (0,))


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies") / "run"
    return study.write_run(folder, networks=("linear",), protocols=(), copies=40)


def test_copies_are_found_under_whatever_label_and_nothing_else(with_copies):
    """Of forty planted pairs, every one with both halves in the training split, and no other."""
    run = read_run(str(with_copies))
    digits = study.load(copies=40)
    table = run.scores["linear"].table
    pictures = {}
    for position, key in enumerate(table["key"].to_pylist()):
        pictures.setdefault(digits.images[int(key)].tobytes(), set()).add(position)
    planted = {frozenset(g) for g in pictures.values() if len(g) > 1}
    found = find_repeats(run, "linear")
    assert len(planted) > 15
    assert {frozenset(g.tolist()) for g in found.groups} == planted
    labels = run.scores["linear"].labels
    differ = [len(set(labels[g])) > 1 for g in found.groups]
    assert differ == sorted(differ, reverse=True)
    figure = repeats_figure(run, "linear", study.COLUMN)
    assert f"{sum(differ)} of these stand under more than one label" in figure.caption


def test_a_page_of_scores_alone_answers_what_is_hard_wrong_and_repeated(
    with_copies, drawn_once, tmp_path
):
    """No sweep, no second network: the page opens with the scores and has no empty part."""
    from raygrad.report import write_report

    (with_copies / "sweep" / "results.parquet").unlink(missing_ok=True)
    page = text_of(write_report([str(with_copies)], str(tmp_path)))
    assert "What is hard in digits, and what looks wrong?" in page
    opening = page.partition('class="opening"')[2].partition("</header>")[0]
    assert 'id="figure-concentration"' in opening
    assert opening.count('class="tile"') == 10
    for figure in ("suspects", "repeats", "classes", "cartography", "images", "agreement"):
        assert caption(page, figure)
    for section in ("findings", "accuracy", "selection"):
        assert f'<section id="{section}"' not in page
    assert "One scoring network: another may rank them otherwise." in page
