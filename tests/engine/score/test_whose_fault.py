"""What one GPU, one node or storage does costs time; every good shard is scored, on real Ray."""

import json
import logging
import os
from pathlib import Path

import pytest

from raygrad.engine.score.job import score
from tests.engine.lost_nodes import on_two_nodes
from tests.engine.score.scoring_cases import (
    assert_same_scores,
    bare_scores,
    by_key,
    faulty,
    make_config,
    make_shards,
    make_task,
)


def test_an_error_of_a_device_ends_its_actor_and_not_the_shard(tmp_path, ray_session):
    """Another process scores it; the shard's tries are untouched, and nothing is given up."""
    flag = tmp_path / "failed"
    harm = faulty(key="s1-004", harm="device", flag=str(flag))
    task = make_task(tmp_path, make_shards(tmp_path), preprocess=harm)
    score(make_config(max_actors=1), task)
    assert flag.exists(), "it did fail"
    assert_same_scores(by_key(tmp_path), bare_scores(task))
    assert json.loads((tmp_path / "scores/metrics.json").read_text())["set_aside"] == []


def test_storage_that_refuses_is_waited_for_and_drains_no_queue(tmp_path, ray_session, caplog):
    """A token that is renewed while the job runs costs a few seconds."""
    flag = tmp_path / "refused"
    harm = faulty(key="s1-004", harm="refused", flag=str(flag))
    task = make_task(tmp_path, make_shards(tmp_path), preprocess=harm)
    with caplog.at_level("INFO", "raygrad"):
        score(make_config(max_actors=1), task)
    assert "score: waits for storage" in caplog.text
    assert "ExpiredToken" in caplog.text
    assert "tried again" not in caplog.text, "the actor itself waited"
    assert_same_scores(by_key(tmp_path), bare_scores(task))


def with_a_bad_node(folder, network, harm):
    """Scores on two nodes, the second of which is bad, and keeps what is said."""
    import ray

    driver = ray.get_runtime_context().get_node_id()
    (bad,) = [one["NodeID"] for one in ray.nodes() if one["NodeID"] != driver]
    Path(os.environ["RAYGRAD_TEST_BAD_NODE"]).write_text(bad)
    log = logging.getLogger("raygrad")
    log.setLevel(logging.INFO)
    log.addHandler(logging.FileHandler(folder / "said.txt"))
    task = make_task(
        folder, make_shards(folder, 12, 6), network, preprocess=faulty(harm=harm, delay_s=0.1)
    )
    score(make_config(), task)
    assert_same_scores(by_key(folder), bare_scores(task))
    (line,) = json.loads((folder / "scores/metrics.json").read_text())["set_aside"]
    assert bad[:12] in line


@pytest.mark.long(seconds=45)
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("network", "harm", "reason"),
    [
        ("net", "bad node", "uncorrectable ECC"),
        ("unbuildable_on_the_bad_node", "", "no module named own_layers"),
        # It is waited for for a minute, as it might be a token that others lack too.
        pytest.param("refused_on_the_bad_node", "", "TimeTooSkewed", marks=pytest.mark.slow),
    ],
    ids=["its GPU fails for ever", "its actors cannot be built", "its clock is far off"],
)
def test_a_bad_node_is_set_aside_and_the_others_score_every_shard(
    tmp_path, monkeypatch, network, harm, reason
):
    pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAYGRAD_TEST_BAD_NODE", str(tmp_path / "bad_node"))
    on_two_nodes(with_a_bad_node, tmp_path, network, harm)
    said = (tmp_path / "said.txt").read_text()
    assert "score: set aside, the job goes on with the others:" in said
    assert reason in said
    assert said.count("set aside:") == 1, "the summary lists it"
    assert "is given up" not in said
