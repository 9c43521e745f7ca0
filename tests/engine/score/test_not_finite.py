"""Scores that are no numbers are told at once, with their count and column, and survive."""

import json
import logging
from pathlib import Path

import pytest
import torch

from raygrad.engine.score import job
from raygrad.engine.score.finite import NotFinite
from raygrad.errors import DataError
from raygrad.runs import score_table
from raygrad.training.models import build_network
from raygrad.training.outside import NetworkSource, weights_digest
from tests.engine.score.scoring_cases import COLUMNS, SPEC, make_config, make_shards, make_task
from tests.pipeline.making_runs import without_ray

NET = "tests.engine.score.scoring_cases:net"


@pytest.fixture
def in_process(monkeypatch):
    without_ray(monkeypatch)


@pytest.fixture
def broken(tmp_path):
    """A checkpoint of which one weight is NaN."""
    weights = build_network(NET, SPEC, seed=3).state_dict()
    weights["3.weight"][0, 0] = float("nan")
    torch.save(weights, tmp_path / "net.pt")
    source = NetworkSource(NET, SPEC, str(tmp_path / "net.pt"))
    digests = (weights_digest(source.build()),)
    urls = make_shards(tmp_path, 2)
    return make_task(tmp_path, urls, networks=(source,), digests=digests)


def test_a_nan_in_a_checkpoint_is_said_with_counts_and_columns_and_where_it_is(
    broken, in_process, caplog
):
    """At the first shard, and in the end, where it is an error: none of the scores is a number."""
    with caplog.at_level(logging.WARNING), pytest.raises(DataError) as failed:
        job.score(make_config(), broken)
    told = [r.getMessage() for r in caplog.records if "NaN or infinite" in r.getMessage()]
    assert len(told) == 1, "once, not a shard"
    assert "own-000, of 12 examples: 12 of grad_l2_weights, 12 of grad_linf_all" in told[0]
    assert "of 24 examples: 24 of el2n, 24 of grad_l2_weights" in str(failed.value)
    assert "3.weight (1 of 768)" in str(failed.value)
    table = score_table.read_score_table(broken.out_url)
    assert table.num_rows == 24, "the table is there to be looked at"
    metrics = json.loads(Path(broken.out_url, "metrics.json").read_text())
    assert metrics["not_finite"] == dict.fromkeys(COLUMNS, 24)


def test_the_same_command_again_says_it_again_from_the_parts(broken, in_process, monkeypatch):
    for attempt in range(2):
        with pytest.raises(DataError, match="24 of el2n"):
            job.score(make_config(), broken)
        monkeypatch.setattr(job, "pool_statuses", None)
        assert attempt < 2


def test_scores_of_which_some_are_numbers_are_complete_with_a_word(caplog):
    found = NotFinite()
    found.add("a", 100, {})
    found.add("b", 100, {"loss": 3})
    found.add("c", 100, {"loss": 1, "el2n": 2})
    with caplog.at_level(logging.WARNING):
        found.conclude(300, (), "table")
    assert "of 300 examples: 2 of el2n, 4 of loss, in table" in caplog.text
    assert "--missing drop" in caplog.text


def test_numbers_alone_are_not_spoken_of(tmp_path, in_process, caplog):
    task = make_task(tmp_path, make_shards(tmp_path, 1))
    facts = job.score(make_config(), task)
    assert "not_finite" not in facts
    assert "NaN" not in caplog.text
