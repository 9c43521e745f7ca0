"""The tables of an audit, from hand-made judgements: their order, reasons and rules."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raygrad.audit.keeping import LABEL, PICTURE, REPEAT
from raygrad.audit.repeats import Pairs, groups_of
from raygrad.cli.audit_subcommand import _lines
from raygrad.config.auditing import RANKINGS, AuditConfig
from raygrad.pipeline.audit_findings import (
    Repeats,
    keep_tables,
    label_table,
    outlier_table,
    repeat_table,
)
from raygrad.pipeline.audit_judging import Judgement, judge
from raygrad.pipeline.audit_looking import Seen, typical_side
from raygrad.runs.audit_tables import doubt

NAMES = ["cat", "dog", "owl"]
SPLITS = ["train"] * 8 + ["test"] * 2
LABELS = [0, 0, 0, 0, 1, 1, 1, 1, 0, 1]
SMALL = np.zeros((10, 32, 32), np.uint8)
HASHES = np.arange(10, dtype=np.uint64) * 7919


def pairs(*found):
    one, other = (np.array(column, np.int64) for column in zip(*found, strict=True))
    return Pairs(one, other, np.full(len(one), 0.97))


@pytest.fixture
def facts():
    keys = [f"k{at}" for at in range(10)]
    return pa.table(
        {"key": keys, "file": [f"{key}.png" for key in keys], "shard": ["s"] * 10,
         "split": SPLITS, "label": pa.array(LABELS, pa.int64())}
    )  # fmt: skip


@pytest.fixture
def judged():
    p = np.full((10, 3), 0.05, np.float32)
    p[np.arange(10), LABELS] = 0.9
    p[3] = [0.02, 0.96, 0.02]
    features = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    return Judgement(p, features, np.zeros(10, np.int64), "by hand")


@pytest.fixture
def repeats():
    """0 and 1 have equal pixels; 4 is a near copy of the test example 9."""
    exact, near = pairs((0, 1)), pairs((4, 9))
    return Repeats(groups_of([exact, near], 10), exact, near, ())


@pytest.fixture
def seen():
    rows = {"width": [32] * 10, "height": [32] * 10, "brightness": [99.0] * 10}
    rows |= {"contrast": [40.0] * 9 + [0.0], "one_colour": [0.1] * 10}
    rows["contrast"][7] = 0.5
    return Seen(pa.table(rows), np.zeros((10, 63), np.float32), None, SMALL, [])


def kept(options, facts, judged, repeats, seen):
    labels, _ = label_table(facts, judged, NAMES)
    found = outlier_table(facts, seen, judged)
    return keep_tables(options, facts, labels, found, repeats, judged, HASHES)


def test_the_contradicted_label_is_first_and_rather_the_other_class(facts, judged):
    table, estimate = label_table(facts, judged, NAMES)
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["key"], first["label_name"], first["suggested_name"]) == ("k3", "cat", "dog")
    assert (first["rank"], first["suspect"], first["says"]) == (1, True, "confident learning")
    assert first["loss"] == pytest.approx(-np.log(0.02), rel=1e-5)
    assert (estimate["num_suspects"], estimate["not_judged"]) == (1, 0)
    assert estimate["accuracy"] == pytest.approx(0.9)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_labels_are_ranked_by_the_column_that_is_asked_for(ranking, facts, judged):
    """What has no number, such as the AUM of what no fold was trained on, comes last."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), 10).astype(np.float32)
    aum = rng.normal(size=10).astype(np.float32)
    aum[[2, 5]] = np.nan
    table, _ = label_table(facts, replace(judged, probabilities=p, aum=aum), NAMES, None, ranking)
    values = np.array(table[ranking].to_pylist(), dtype=float)
    known = values[np.isfinite(values)]
    assert (np.diff(known) <= 0).all()
    assert np.isfinite(values[: len(known)]).all()
    error = p.astype(float) - np.eye(3)[LABELS]
    entered = np.concatenate([judged.features, np.ones((10, 1))], axis=1)
    norms = [np.linalg.norm(np.outer(e, x)) for e, x in zip(error, entered, strict=True)]
    at = [int(key[1:]) for key in table["key"].to_pylist()]
    np.testing.assert_allclose(table["gradient_norm"].to_numpy(), np.array(norms)[at], rtol=1e-5)


def test_an_example_that_is_alone_in_its_class_is_not_judged_and_last(facts, judged):
    alone = facts.set_column(4, "label", pa.array([2, *LABELS[1:]], pa.int64()))
    table, estimate = label_table(alone, judged, NAMES)
    last = table.slice(9, 1).to_pylist()[0]
    assert (last["key"], last["suspect"]) == ("k0", False)
    assert last["says"] == "the class has one example: not judged"
    assert estimate["not_judged"] == 1


def separated(sizes, groups=None):
    """The table and estimate of classes that are far from each other, judged in three folds."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(labels), 8)) * 0.3 + 3 * np.eye(8)[labels]
    rows = pa.table({"label": labels, "key_hash": rng.integers(0, 2**63, len(labels)).astype("u8")})
    keys = [f"k{at:03d}" for at in range(len(labels))]
    facts = pa.table({"key": keys, "label": labels})
    seen = Seen(rows, SMALL, features.astype(np.float32), SMALL, [])
    groups = np.full(len(labels), -1) if groups is None else groups
    said = judge(AuditConfig(folds=3), "cnn", None, seen, groups, len(sizes), 3, "")
    return label_table(facts, said, [f"c{at}" for at in range(len(sizes))])


@pytest.mark.parametrize("sizes", [[40, 40], [40, 40, 1], [1, 40, 40, 1]])
def test_a_class_of_one_that_no_fold_saw_makes_no_label_of_the_others_a_suspect(sizes):
    _, estimate = separated(sizes)
    assert (estimate["num_suspects"], estimate["num_wrong"]) == (0, 0)
    assert estimate["not_judged"] == sizes.count(1)
    assert estimate["num_wrong_high"] < 8


def test_a_class_whose_images_are_copies_of_one_another_is_not_judged():
    """They are in one fold, so that nobody has seen the class; apart they are judged."""
    copies = np.array([-1] * 80 + [0, 0])
    table, estimate = separated([40, 40, 2], copies)
    assert (estimate["num_suspects"], estimate["num_wrong"], estimate["not_judged"]) == (0, 0, 2)
    last = table.slice(80, 2).to_pylist()
    assert {row["key"] for row in last} == {"k080", "k081"}
    assert {row["says"] for row in last} == {"the class is in one fold, as copies are: not judged"}
    _, apart = separated([40, 40, 2])
    assert (apart["num_suspects"], apart["not_judged"]) == (0, 0)


def test_a_label_that_is_likelier_than_the_class_that_is_reached_is_no_suspect(facts, judged):
    """Of dogs that are rarely believed in, a third reaches the threshold by which cats are cats."""
    p = np.array(judged.probabilities)
    p[4:8] = p[9] = [0.7, 0.25, 0.05]
    p[3] = [0.7, 0.28, 0.02]
    table, _ = label_table(facts, replace(judged, probabilities=p), NAMES)
    said = {row["key"]: row["suspect"] for row in table.to_pylist()}
    assert not said["k3"]


def test_groups_that_cross_splits_or_labels_come_first(facts, repeats):
    rows = repeat_table(facts, repeats, NAMES).to_pylist()
    assert [(row["group"], row["key"], row["kind"]) for row in rows] == [
        (1, "k4", "near"), (1, "k9", "near"), (2, "k0", "exact"), (2, "k1", "exact"),
    ]  # fmt: skip
    assert [row["across_splits"] for row in rows] == [True, True, False, False]
    assert not any(row["across_labels"] for row in rows)
    assert rows[0]["similarity"] == pytest.approx(0.97)


def test_each_flaw_is_its_reason_and_the_test_image_stays_in_test(facts, judged, repeats, seen):
    keep, drop, _ = kept(AuditConfig(), facts, judged, repeats, seen)
    reasons = {row["key"]: row["reason"] for row in drop.to_pylist()}
    assert reasons == {"k1": REPEAT, "k3": LABEL, "k4": REPEAT, "k7": PICTURE}
    assert keep["key"].to_pylist() == ["k0", "k2", "k5", "k6"]


@pytest.mark.parametrize("goal", ["clean", "accuracy", "coverage"])
def test_a_share_is_met_flaws_first_and_what_else_goes_has_the_rule(
    goal, facts, judged, repeats, seen
):
    few = AuditConfig(goal=goal, keep_fraction=0.25)
    more = AuditConfig(goal=goal, keep_fraction=0.75)
    keep, drop, rule = kept(few, facts, judged, repeats, seen)
    assert (keep.num_rows, drop.num_rows) == (2, 6)
    assert [row["reason"] for row in drop.to_pylist()].count(rule) == 2
    larger, _, _ = kept(more, facts, judged, repeats, seen)
    assert set(keep["key"].to_pylist()) <= set(larger["key"].to_pylist())
    assert {"k0", "k2", "k5", "k6"} <= set(larger["key"].to_pylist())


def test_the_side_that_is_trained_on_is_the_middle_one_and_at_most_what_is_asked():
    rows = pa.table({"width": [28, 40, 500], "height": [28, 30, 400]})
    assert (typical_side(rows, 64), typical_side(rows, 20)) == (30, 20)


def test_what_is_printed_names_what_was_not_judged_and_not_decoded():
    facts = dict.fromkeys(
        ["num_examples", "num_suspects", "num_repeated", "num_groups", "num_across_splits",
         "num_across_labels", "num_odd", "num_kept", "num_dropped", "not_judged", "rejected"], 3
    )  # fmt: skip
    facts |= {"how": "cnn", "accuracy": 0.5, "rule": "a random draw"}
    facts |= {"num_wrong": 2.0, "num_wrong_low": 1.0, "num_wrong_high": 4.0}
    text = "\n".join(_lines(facts))
    assert "about 2 wrong (1 to 4" in text
    assert "agrees with only 50% of the labels" in text
    assert "3 images are alone in their class but for copies: not judged" in text
    assert "3 images could not be decoded: rejects.parquet" in text


@pytest.mark.parametrize(("accuracy", "told"), [(0.4, True), (0.799, True), (0.8, False)])
def test_a_network_that_agrees_with_few_labels_is_told_of(accuracy, told):
    """Its own errors are most of what it flags, and a number of wrong labels would mislead."""
    assert (f"only {accuracy:.0%} of the labels" in doubt(accuracy)) == told
    assert bool(doubt(accuracy)) == told
