"""Findings are what the intervals carry and nothing more, against scipy on the table itself."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from raygrad.report.comparing import comparisons, gaps_to_full
from raygrad.report.figures.gain import gain_table
from raygrad.report.findings import findings, needs
from raygrad.report.results import panels_of, trials_of
from tests.report import study

NUM_TEST = 360


@pytest.fixture(scope="module")
def table(run_folder):
    return pq.read_table(run_folder / "sweep" / "results.parquet").to_pandas()


@pytest.fixture(scope="module")
def panels(run_folder):
    results = pq.read_table(run_folder / "sweep" / "results.parquet")
    return panels_of(trials_of(results), dict.fromkeys(study.NETWORKS, NUM_TEST))


def accuracies(table, network, protocol, method, fraction):
    if fraction == 1.0:
        rows = table[(table.network == network) & (table.keep_fraction == 1.0)]
    else:
        rows = table[
            (table.network == network)
            & (table.protocol == protocol)
            & (table.method == method)
            & (table.keep_fraction == fraction)
        ]
    return rows.sort_values("seed").test_accuracy.to_numpy()


def spread_by_hand(table, panel):
    """Each cell's variance as the comparison has it: the share's, times the method's factor."""
    least = (1 / NUM_TEST) ** 2 / 12
    cells = {
        (m, f): accuracies(table, panel.network, panel.protocol, m, f)
        for m in study.METHODS
        for f in sorted(study.FRACTIONS)[:-1]
    }
    variance = {cell: max(x.var(ddof=1), least) for cell, x in cells.items()}
    raw = {cell: x.var(ddof=1) for cell, x in cells.items()}
    factor = dict.fromkeys(study.METHODS, 1.0)
    shares = sorted(study.FRACTIONS)[:-1]

    def pooled():
        return {
            f: max(np.mean([raw[m, f] / factor[m] for m in study.METHODS]), least) for f in shares
        }

    for _ in range(2):
        by_share = pooled()
        factor = {m: np.mean([variance[m, f] / by_share[f] for f in shares]) for m in study.METHODS}
    by_share = pooled()
    return cells, {(m, f): max(by_share[f] * factor[m], least) for m, f in cells}


def welch_by_hand(a, b):
    """Degrees and standard error of a difference by the two samples' own spreads."""
    least = (1 / NUM_TEST) ** 2 / 12
    u, v = (max(x.var(ddof=1), least) / len(x) for x in (a, b))
    degrees = 2 if u == v else (u + v) ** 2 / (u**2 / 2 + v**2 / 2)
    return degrees, np.sqrt(u + v)


def test_comparisons_are_holms_by_the_pooled_spread_and_stand_by_their_own(table, panels):
    for panel in panels:
        cells, variance = spread_by_hand(table, panel)
        got = {(c.method, c.keep_fraction): c for c in comparisons(panel)}
        assert len(got) == 12
        p, half = {}, {}
        for m, f in got:
            a, b, u, v = cells[m, f], cells["random", f], variance[m, f], variance["random", f]
            # 8 degrees from the share, 8 from the method's own four shares of three seeds.
            one = 1 / (1 / 8 + 1 / 8)
            df = min((u + v) ** 2 / (u**2 / one + v**2 / one), 7)
            error = np.sqrt((u + v) / 3)
            p[m, f] = 2 * stats.t.sf(abs(a.mean() - b.mean()) / error, df)
            half[m, f] = df, error
        order = sorted(p, key=p.get)
        rejected = 0
        while rejected < 12 and p[order[rejected]] <= 0.05 / (12 - rejected):
            rejected += 1
        for at, cell in enumerate(order):
            df, error = half[cell]
            own_df, own_error = welch_by_hand(cells[cell], cells["random", cell[1]])
            level = 0.05 / (12 - min(at, rejected))
            width = max(
                stats.t.isf(level / 2, df) * error,
                stats.t.isf(max(level, 0.04) / 2, own_df) * own_error,
            )
            gain = cells[cell].mean() - cells["random", cell[1]].mean()
            c = got[cell]
            assert (c.gain.mean, c.gain.low) == pytest.approx(
                (gain, max(gain - width, -1)), abs=1e-9
            )
            own_p = 2 * stats.t.sf(abs(gain) / own_error, own_df)
            assert (c.better or c.worse) == (at < rejected and own_p <= max(level, 0.04))
            assert (c.better or c.worse) == (c.p_value <= 0.05)
            seen = max(
                (stats.t.isf(0.05 / 12 / 2, df) + stats.t.ppf(0.8, df)) * error,
                (stats.t.isf(0.04 / 2, own_df) + stats.t.ppf(0.8, own_df)) * own_error,
            )
            assert c.visible == pytest.approx(seen, abs=1e-9)


def test_needs_are_the_fractions_that_the_intervals_settle(panels):
    for panel in panels:
        gaps = gaps_to_full(panel)
        for need in needs(panel):
            mine = gaps[need.method]
            good = [gap.low >= -0.005 for _, gap in mine]
            enough = next((f for i, (f, _) in enumerate(mine) if all(good[i:])), None)
            bad = [f for f, gap in mine if gap.high < -0.005]
            assert need.enough == enough
            assert need.too_little == (max(bad) if bad else None)


def test_the_sentences_say_the_verdicts_of_the_comparisons(panels):
    """Each method and fraction named as better or worse is, and none that is goes unnamed."""
    found = findings(panels)
    for panel in panels:
        texts = [
            f.text for f in found if (f.network, f.protocol) == (panel.network, panel.protocol)
        ]
        compared = comparisons(panel)
        texts = [t.removeprefix("Given one scoring network: ") for t in texts]
        for start, chosen in (
            ("Better", [c for c in compared if c.better]),
            ("Worse", [c for c in compared if c.worse]),
        ):
            text = next((t for t in texts if t.startswith(start)), "")
            named = {
                (method, float(number) / 100)
                for method, fractions in re.findall(r"(\w+) at ([\d.%, and]+) \(by", text)
                for number in re.findall(r"([\d.]+)%", fractions)
            }
            assert named == {(c.method, c.keep_fraction) for c in chosen}
        assert any(c.better for c in compared) != any(t.startswith("No method") for t in texts)


def test_the_bars_of_gains_leave_zero_out_exactly_where_a_finding_does(panels):
    for panel in panels:
        rows = {(r["method"], r["keep_fraction"]): r for r in gain_table([panel]).to_pylist()}
        compared = comparisons(panel)
        assert len(rows) == len(compared)
        assert any(c.better for c in compared)
        for c in compared:
            low, high = (rows[c.method, c.keep_fraction][end] for end in ("low", "high"))
            assert (low > 0, high < 0) == (c.better, c.worse)
