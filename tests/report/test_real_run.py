"""The reports of runs that the engines made of digits and MNIST, not of tables of a test's own.

Every number is computed again here from the run's tables, by pandas, scipy and loops.
"""

import math
import re
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from raygrad.report import write_report
from tests.report import browser as headless
from tests.report.study import COLUMN
from tests.report.test_report import caption

pytestmark = pytest.mark.slow

# The paper's figure, and ours that draw it.
OF_THE_PAPER = {
    (1,): ["bound"],
    (2, 5): ["heatmap"],
    (3, 8, 9): ["accuracy"],
    (4,): ["images"],
    (6,): ["overlap"],
    (7, 12): ["entropy"],
    (10,): ["hardest"],
    (11,): ["top-sample"],
}
BEYOND = ["gain", "attributes", "suspects", "classes", "correlation", "cost"]
OF_TWO_NETWORKS = ["overlap", "hardest"]
OF_TWO_PANELS = ["attributes"]


@pytest.fixture(scope="module")
def mnist(engines_mnist, tmp_path_factory) -> Path:
    return Path(write_report([str(engines_mnist)], str(tmp_path_factory.mktemp("mnist"))))


@pytest.fixture(scope="module")
def digits(engines_digits, tmp_path_factory) -> Path:
    return Path(write_report([str(engines_digits)], str(tmp_path_factory.mktemp("digits"))))


@pytest.fixture(scope="module")
def together(engines_digits, engines_mnist, tmp_path_factory) -> Path:
    runs = [str(engines_digits), str(engines_mnist)]
    return Path(write_report(runs, str(tmp_path_factory.mktemp("together"))))


def numbers(index: Path, figure: str) -> pd.DataFrame:
    return pd.read_csv(index.parent / "figures" / f"{figure}.csv")


def said(index: Path, figure: str) -> str:
    return caption(index.read_text(), figure).replace("&#x27;", "'")


def scores(run: Path, network: str) -> pd.DataFrame:
    parts = sorted((run / "scores" / network).glob("part-*.parquet"))
    table = pd.concat([pq.read_table(p).to_pandas() for p in parts], ignore_index=True)
    return table.sort_values("key", ignore_index=True)


def hardest_first(table: pd.DataFrame, column: str = COLUMN) -> pd.DataFrame:
    return table.sort_values(column, ascending=False, kind="stable")


def results(run: Path) -> pd.DataFrame:
    return pq.read_table(run / "sweep" / "results.parquet").to_pandas()


def assert_drawn(index: Path, figure: str) -> None:
    folder = index.parent / "figures"
    png = (folder / f"{figure}.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height > 200) == (1520, True)
    assert (folder / f"{figure}.svg").read_text().startswith("<?xml")
    assert len(numbers(index, figure))
    assert said(index, figure)


def test_mnist_gives_the_papers_twelve_figures_and_ours(mnist):
    assert sorted(n for paper in OF_THE_PAPER for n in paper) == list(range(1, 13))
    for figure in [*(f for ours in OF_THE_PAPER.values() for f in ours), *BEYOND]:
        assert_drawn(mnist, figure)


def test_digits_gives_all_but_what_takes_a_second_network(digits):
    page = digits.read_text()
    for figure in [*(f for ours in OF_THE_PAPER.values() for f in ours), *BEYOND]:
        if figure in OF_TWO_NETWORKS or figure in OF_TWO_PANELS:
            assert f'id="figure-{figure}"' not in page
        else:
            assert_drawn(digits, figure)
    assert page.count("at least two networks") == len(OF_TWO_NETWORKS)


def test_the_page_counts_and_shows_training_examples_only(digits, engines_digits):
    page = digits.read_text()
    index = pq.read_table(engines_digits / "data" / "index.parquet").to_pandas()
    train = index[index.split == "train"]
    assert f"<dt>training examples</dt><dd>{len(train):,}</dd>" in page
    shown = set(re.findall(r'class="tile" data-key="([^"]*)"', page))
    assert shown
    assert shown <= set(train.key)


def test_accuracy_is_the_mean_and_its_t_interval_over_the_sweeps_seeds(mnist, engines_mnist):
    table = results(engines_mnist)
    kept = table.drop_duplicates(["network", "method", "keep_fraction", "protocol", "seed"])
    drawn = numbers(mnist, "accuracy")
    assert len(drawn) == 2 * 2 * (4 * 2 + 1)
    for row in drawn.itertuples():
        at = kept[(kept.network == row.network) & (kept.keep_fraction == row.keep_fraction)]
        if row.method != "full data":
            at = at[(at.method == row.method) & (at.protocol == row.protocol)]
        values = at.groupby("seed").test_accuracy.mean()
        least = 1 / 300 / math.sqrt(12)
        half = stats.t.ppf(0.975, 1) * max(values.std(), least) / math.sqrt(2)
        assert row.n == len(values) == 2
        assert row.mean == pytest.approx(values.mean(), abs=1e-12)
        ends = max(row.mean - half, 0), min(row.mean + half, 1)
        assert (row.low, row.high) == pytest.approx(ends, abs=1e-9)
    for network in ("linear", "mlp"):
        full = kept[(kept.network == network) & (kept.keep_fraction == 1)]
        assert f"{100 * full.test_accuracy.mean():.2f}% (" in said(mnist, "accuracy")


def test_gains_and_costs_are_the_sweeps(mnist, engines_mnist):
    by = ["network", "protocol", "method", "keep_fraction"]
    mean = results(engines_mnist).groupby(by)[["test_accuracy", "train_time_s"]].mean()
    for row in numbers(mnist, "gain").itertuples():
        ours = mean.loc[(row.network, row.protocol, row.method, row.keep_fraction)]
        base = mean.loc[(row.network, row.protocol, "random", row.keep_fraction)]
        gain = 100 * (ours.test_accuracy - base.test_accuracy)
        assert row.gain_points == pytest.approx(gain, abs=1e-9)
    cost = numbers(mnist, "cost")
    for row in cost[cost.method != "full data"].itertuples():
        ours = mean.loc[(row.network, row.protocol, row.method, row.keep_fraction)]
        assert row.train_time_s == pytest.approx(ours.train_time_s)


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_the_heatmap_is_the_engines_probe(mnist, engines_mnist, network):
    probe = pq.read_table(engines_mnist / "train" / network / "probe.parquet").to_pandas()
    assert probe.key.nunique() == 512
    drawn = numbers(mnist, "heatmap")
    drawn = drawn[drawn.network == network]
    both = drawn.merge(probe, on=["key", "epoch"], suffixes=("", "_probe"))
    assert len(both) == len(drawn) == len(probe)
    assert np.allclose(both[COLUMN], both[f"{COLUMN}_probe"], rtol=1e-12)
    final = drawn[drawn.epoch == drawn.epoch.max()][COLUMN]
    assert final.is_monotonic_increasing
    assert f"from {probe[probe.epoch == 1][COLUMN].median():.3g} to " in said(mnist, "heatmap")
    assert "Dashed lines mark decays" in said(mnist, "heatmap")


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_the_bound_is_the_engines_and_holds(mnist, engines_mnist, network):
    bound = pq.read_table(engines_mnist / "train" / network / "bound.parquet").to_pandas()
    drawn = numbers(mnist, "bound")
    drawn = drawn[drawn.network == network]
    assert len(drawn) == len(bound) == 2 * 10
    for name in ("norm_of_sum", "sum_of_norms"):
        assert np.allclose(np.sort(drawn[name]), np.sort(bound[name]), rtol=1e-12)
    assert (drawn.norm_of_sum <= drawn.sum_of_norms * (1 + 1e-6)).all()
    last = bound[bound.epoch == 3]
    r = stats.pearsonr(last.sum_of_norms, last.norm_of_sum)
    low, high = r.confidence_interval(0.95)
    expected = f"over 10 batches is {r.statistic:.2f} (95% interval {low:.2f} to {high:.2f})"
    assert expected in said(mnist, "bound")


def test_overlap_is_that_of_the_two_networks_sets(mnist, engines_mnist):
    tops = [hardest_first(scores(engines_mnist, n)).key.tolist() for n in ("cnn", "mlp")]
    drawn = numbers(mnist, "overlap")
    ours = drawn[drawn.curve == "cnn and mlp"]
    assert ours.k.max() == len(tops[0])
    for row in ours.itertuples():
        shared = len(set(tops[0][: row.k]) & set(tops[1][: row.k])) / row.k
        assert row.overlap == pytest.approx(shared, abs=1e-12)
    chance = drawn[drawn.curve == "two random sets"]
    assert np.allclose(chance.overlap, chance.k / len(tops[0]))
    k = int(0.05 * len(tops[0]))
    shared = len(set(tops[0][:k]) & set(tops[1][:k])) / k
    percentage = float(re.search(r"([\d.]+)% of the hardest 5%", said(mnist, "overlap"))[1])
    assert percentage == pytest.approx(100 * shared, abs=0.06)


def test_entropy_is_that_of_the_labels_of_the_hardest(mnist, engines_mnist):
    drawn = numbers(mnist, "entropy")
    for network in ("cnn", "mlp"):
        labels = hardest_first(scores(engines_mnist, network)).label.to_numpy()
        for row in drawn[drawn.curve == network].iloc[::7].itertuples():
            bits = stats.entropy(np.bincount(labels[: row.k]), base=2)
            assert row.entropy_bits == pytest.approx(bits, abs=1e-9)
        assert f"{stats.entropy(np.bincount(labels), base=2):.2f} among all" in said(
            mnist, "entropy"
        )


def test_rank_correlations_are_spearmans_of_scores_dynamics_and_the_other_network(
    mnist, engines_mnist
):
    own, other = scores(engines_mnist, "cnn"), scores(engines_mnist, "mlp")
    dynamics = scores(engines_mnist, "cnn-dynamics").set_index("key").loc[own.key]
    assert {"forgetting", "aum"} <= set(dynamics.columns)
    drawn = numbers(mnist, "correlation").set_index("score")
    for column, values in {
        "loss": own.loss,
        "el2n": own.el2n,
        "aum": dynamics.aum,
        "forgetting": dynamics.forgetting,
        f"mlp: {COLUMN}": other[COLUMN],
    }.items():
        expected = stats.spearmanr(own[COLUMN].to_numpy(), values.to_numpy()).statistic
        assert drawn.loc[COLUMN, column] == pytest.approx(expected, abs=1e-9)


def test_images_are_those_of_the_scores(mnist, engines_mnist):
    cnn = hardest_first(scores(engines_mnist, "cnn"))
    grid = numbers(mnist, "images")
    hardest = cnn.head(10)
    assert grid[COLUMN].head(10).tolist() == pytest.approx(hardest[COLUMN].tolist())
    assert grid[COLUMN].iloc[-1] == pytest.approx(cnn[COLUMN].min())
    wrong = int((hardest.label != hardest.prediction).sum())
    assert f"Of the 10 hardest shown, {wrong} are classified wrongly" in said(mnist, "images")
    for network in ("cnn", "mlp"):
        ordered = hardest_first(scores(engines_mnist, network))
        for figure, among in (("hardest", ordered.head(20)), ("top-sample", ordered.head(66))):
            shown = numbers(mnist, figure)
            assert set(shown[shown.network == network].key) <= set(among.key)
            assert len(shown[shown.network == network]) == 20
    contradicted = int((cnn.label != cnn.prediction).sum())
    assert f"the label of {contradicted} of {len(cnn):,}" in said(mnist, "suspects")


def test_two_data_sets_give_one_page_that_compares_them(together, engines_digits, engines_mnist):
    for figure in ("attributes", "relative", "entropy"):
        assert_drawn(together, f"compared-{figure}")
    for figure in ("accuracy", "heatmap", "bound", "images"):
        for run in ("digits", "mnist"):
            assert_drawn(together, f"{run}-{figure}")
    drawn = numbers(together, "compared-relative")
    for run, folder, network in (
        ("digits", engines_digits, "linear"),
        ("mnist", engines_mnist, None),
    ):
        table = results(folder)
        table = table[(table.protocol == "equal_epochs") & (table.network == (network or "linear"))]
        mean = table.groupby(["method", "keep_fraction"]).test_accuracy.mean()
        for row in drawn[(drawn.run == run) & (drawn.series == "random")].itertuples():
            relative = mean["random", row.keep_fraction] / mean["random", 1.0]
            assert row.relative == pytest.approx(relative, abs=1e-12)


@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_of_both_works_in_a_browser(together, engines_digits, engines_mnist, width):
    """No error, nothing asked of the network, nothing too wide; each run's browser is its own."""
    problems = []
    with headless.chromium() as chromium:
        for scheme in ("light", "dark"):
            page = chromium.new_page(
                viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
            )
            headless.watch(page, problems)
            page.goto(f"file://{together}")
            assert headless.overflowing(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert (
                page.locator("img:not([alt]), img[alt=''], svg.plot:not([aria-label])").count() == 0
            )
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
            assert len(ids) == len(set(ids))
        for run, folder, network in (
            ("digits", engines_digits, "linear"),
            ("mnist", engines_mnist, "cnn"),
        ):
            browser, table = page.locator(f"#{run}-browser"), scores(folder, network)
            by = browser.locator("select[name=column]")
            by.select_option("loss")
            first = browser.locator(".tile").first
            worst = table.loc[table.loss.idxmax()]
            assert first.get_attribute("data-key") == worst.key
            by.focus()
            for _ in range(8):
                page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "tile"
            page.keyboard.press("Enter")
            dialog = page.locator("dialog.example[open]")
            assert worst.key in dialog.inner_text()
            page.keyboard.press("Escape")
            browser.locator("select[name=label]").select_option("3")
            status = browser.locator(".status").inner_text()
            assert int(status.split()[0].replace(",", "")) == int((table.label == 3).sum())
        head = page.locator(".sortable th button").first
        head.click()
        assert head.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    assert problems == []
