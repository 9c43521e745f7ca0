"""Whatever dies, every example is scored once: on real Ray, with actors that really die."""

import itertools
import json
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.data._internal import stats

from raygrad.engine.score import pool as score_pool
from raygrad.engine.score.board import start_board
from raygrad.engine.score.job import FAILURES, score
from raygrad.errors import ConfigError, IncompleteError, RaygradError
from raygrad.runs import score_table
from tests.engine.score.scoring_cases import (
    assert_same_scores,
    bare_scores,
    by_key,
    faulty,
    make_config,
    make_shards,
    make_task,
    rejects,
)

BOUND_S = 150
"""More than any of these takes on a busy machine; without bounds they would never end."""


def parts(folder):
    return sorted(path.name for path in (folder / "scores").glob("part-*.parquet"))


def metrics(folder):
    return json.loads((folder / "scores" / "metrics.json").read_text())


def assert_nothing_half_written(folder):
    assert list(folder.rglob("*.tmp")) == []


def test_a_pool_scores_every_example_once_and_says_what_it_cost(tmp_path, ray_session, caplog):
    task = make_task(tmp_path, make_shards(tmp_path, broken=("s2-004",)))
    with caplog.at_level("INFO", "raygrad"):
        facts = score(make_config(price_per_hour=3.6), task)
    assert facts == {"num_shards": 4, "num_examples": 47, "rejected": 1}
    assert_same_scores(by_key(tmp_path), bare_scores(task, skip=("s2-004",)))
    assert [row["key"] for row in rejects(tmp_path)] == ["s2-004"]
    found = metrics(tmp_path)
    assert found["scored_now"] == found["num_examples"] == 47
    assert found["cost_per_million"] == pytest.approx(found["device_s_per_million"] / 1000)
    assert "score: 48 of 48 images" in caplog.text
    notes = [r for r in caplog.records if r.getMessage().endswith("reject")]
    alone = [r.created for r in notes if "images" not in r.getMessage()]
    assert all(b - a > 4.9 for a, b in itertools.pairwise(alone)), "not twice a second"
    assert "47 examples, 1 rejected" in caplog.text
    assert_nothing_half_written(tmp_path)
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor(stats.STATS_ACTOR_NAME, namespace=stats.STATS_ACTOR_NAMESPACE)


@pytest.mark.parametrize("when", ["before it begins", "while it is under way"])
def test_a_job_that_is_left_leaves_no_thread_that_asks_ray(when, tmp_path, ray_session):
    """Ray would be shut down beneath it: begun anew by its question, aborted, or ended unsaid."""
    task = make_task(tmp_path, make_shards(tmp_path), preprocess=faulty(delay_s=30.0))
    before = set(threading.enumerate())
    board = start_board(score_pool.actor_need(make_config(), task), 60.0, 0)
    sizes = {f"own-{at:03d}": 12 for at in range(4)}
    statuses = score_pool.pool_statuses(make_config(), task, board, sizes)

    def of_the_job():
        new = set(threading.enumerate()) - before
        names = ("raygrad-score", "StreamingExecutor-")
        return {one.name for one in new if one.name.startswith(names)}

    end_s = time.monotonic() + BOUND_S
    assert next(statuses) is None
    while when == "while it is under way" and len(of_the_job()) < 2:
        assert next(statuses) is None
        assert time.monotonic() < end_s
    begun_s = time.monotonic()
    statuses.close()
    assert of_the_job() == set()
    assert time.monotonic() - begun_s < 3 * score_pool._ENDED_WITHIN_S


@pytest.mark.parametrize("blocks_each", [score_pool._BLOCKS_EACH, 1], ids=["alone", "in twos"])
def test_a_poison_shard_is_listed_and_the_rest_is_scored(
    blocks_each, tmp_path, ray_session, monkeypatch
):
    """Also where it is in one block with a good one, which is settled once."""
    monkeypatch.setattr(score_pool, "_BLOCKS_EACH", blocks_each)
    urls = make_shards(tmp_path)
    task = make_task(tmp_path, urls, preprocess=faulty(key="s1-004", harm="kill"))
    start_s = time.monotonic()
    with pytest.raises(IncompleteError, match=r"1 of 4 that failed: own-001: its actor died"):
        score(make_config(), task)
    assert time.monotonic() - start_s < BOUND_S
    assert parts(tmp_path) == [f"part-own-00{at}.parquet" for at in (0, 2, 3)]
    assert list(json.loads((tmp_path / "scores/_failures.json").read_text())) == ["own-001"]
    assert not (tmp_path / "scores/_manifest.json").exists()


def test_a_killed_actor_costs_time_and_nothing_else(tmp_path, ray_session):
    flag = tmp_path / "killed"
    urls = make_shards(tmp_path)
    task = make_task(tmp_path, urls, preprocess=faulty(key="s2-006", harm="kill", flag=str(flag)))
    score(make_config(), task)
    assert flag.exists(), "an actor did die"
    assert_same_scores(by_key(tmp_path), bare_scores(task))
    assert metrics(tmp_path)["retries"] >= 1
    assert_nothing_half_written(tmp_path)


@pytest.mark.slow
def test_a_hanging_shard_is_listed_and_the_rest_is_scored(tmp_path, ray_session):
    """Code that never returns and holds the interpreter's lock is ended by the actor's clock."""
    urls = make_shards(tmp_path)
    task = make_task(
        tmp_path, urls, preprocess=faulty(key="s0-011", harm="hang"), shard_timeout_s=8.0
    )
    start_s = time.monotonic()
    with pytest.raises(IncompleteError, match="own-000: its actor died, or made no progress"):
        score(make_config(), task)
    assert time.monotonic() - start_s < BOUND_S
    assert parts(tmp_path) == [f"part-own-00{at}.parquet" for at in (1, 2, 3)]


@pytest.mark.slow
def test_an_actor_that_cannot_be_built_is_one_clear_error(tmp_path, ray_session):
    task = make_task(tmp_path, make_shards(tmp_path), "unbuildable")
    start_s = time.monotonic()
    with pytest.raises(RaygradError, match=r"scoring cannot go on.*cannot be built here"):
        score(make_config(), task)
    assert time.monotonic() - start_s < BOUND_S
    assert parts(tmp_path) == []


def test_a_failing_shard_is_tried_again_elsewhere_and_then_listed(tmp_path, ray_session):
    """What is no property of the data, such as storage that fails, gets further tries."""
    urls = make_shards(tmp_path, 2)
    task = make_task(tmp_path, urls)
    Path(urls[1]).unlink()
    with pytest.raises(IncompleteError, match="1 of 2 that failed: own-001: FileNotFoundError"):
        score(make_config(), task)
    assert parts(tmp_path) == ["part-own-000.parquet"]
    failures = tmp_path / "scores" / FAILURES
    assert list(json.loads(failures.read_text())) == ["own-001"]
    make_shards(tmp_path, 1, first=1)
    score(make_config(), task)
    assert json.loads(failures.read_text()) == {}
    assert_same_scores(by_key(tmp_path), bare_scores(task))
    assert metrics(tmp_path)["scored_now"] == 12, "the first shard was not scored again"


def test_an_output_that_cannot_be_written_is_said_before_any_work(tmp_path, ray_session):
    (tmp_path / "file").write_text("")
    task = make_task(tmp_path, make_shards(tmp_path, 1), out_url=str(tmp_path / "file" / "scores"))
    with pytest.raises(ConfigError, match="the output must be writable"):
        score(make_config(), task)


def test_a_disk_that_fills_up_ends_the_job_and_room_lets_it_go_on(tmp_path, ray_session):
    """From the third shard on nothing can be written; what is there stays whole."""
    urls = make_shards(tmp_path)
    flag = str(tmp_path / "full")
    task = make_task(tmp_path, urls, preprocess=faulty(key="s2-000", harm="full", flag=flag))
    with pytest.raises(RaygradError, match=r"the output must be writable.*No space left"):
        score(make_config(max_actors=1), task)
    assert parts(tmp_path) == ["part-own-000.parquet", "part-own-001.parquet"]
    score(make_config(max_actors=1), task)
    assert_same_scores(by_key(tmp_path), bare_scores(task))
    assert_nothing_half_written(tmp_path)


@pytest.mark.slow
def test_one_or_two_actors_another_order_and_other_batches_give_the_same_table(
    tmp_path, ray_session
):
    urls = make_shards(tmp_path)
    base = make_task(tmp_path, urls)
    expected = bare_scores(base)
    for at, (config, order, batch_size) in enumerate(
        [
            (make_config(max_actors=1), urls, 5),
            (make_config(max_actors=2), urls[::-1], 5),
            (make_config(max_actors=2), urls[2:] + urls[:2], 64),
        ]
    ):
        folder = tmp_path / f"{at}"
        task = make_task(folder, order, batch_size=batch_size)
        score(config, task)
        assert_same_scores(by_key(folder), expected)
    assert by_key(tmp_path / "0") == by_key(tmp_path / "1"), "the same batches: the same bits"


@pytest.mark.slow
def test_two_jobs_on_one_folder_at_the_same_time_leave_one_right_table(tmp_path, ray_session):
    urls = make_shards(tmp_path)
    task = make_task(tmp_path, urls, preprocess=faulty(delay_s=0.02))
    caught = []

    def job():
        try:
            score(make_config(max_actors=1), task)
        except RaygradError as error:
            caught.append(error)

    jobs = [threading.Thread(target=job) for _ in range(2)]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join(BOUND_S)
    assert caught == []
    assert_same_scores(by_key(tmp_path), bare_scores(task))
    assert len(parts(tmp_path)) == 4
    assert_nothing_half_written(tmp_path)


def test_a_job_for_other_scores_in_the_same_folder_is_refused_at_once(tmp_path, ray_session):
    task = make_task(tmp_path, make_shards(tmp_path, 1))
    score_table.bind_table(task.out_url, {"network": "another"})
    with pytest.raises(ConfigError, match="one provenance, got another columns, network"):
        score(make_config(), task)


@pytest.mark.parametrize(
    ("options", "num_shards", "expected"),
    [
        ({}, 100, (1, 2, 2)),
        ({}, 1, (1, 1, 1)),
        ({"max_actors": 1}, 100, (1, 1, 1)),
        ({"max_actors": 8}, 100, (1, 8, 2)),
        ({"min_actors": 3, "max_actors": 8}, 100, (3, 8, 3)),
    ],
)
def test_the_pool_is_between_its_bounds(options, num_shards, expected):
    assert score_pool.pool_size(make_config(**options), 2, num_shards) == expected


@pytest.mark.parametrize(
    ("num_shards", "each", "most_actors", "expected"),
    [
        (100_000, 2, 1, 32),
        (100_000, 2, 1000, 3),
        (100_000, 100, 1, 2),
        (100_000, 257, 1, 1),
        (1_000_000, 10_000, 64, 1),
        (64, 1, 2, 1),
        (3, 0, 8, 1),
    ],
)
def test_only_small_shards_go_several_a_block_and_leave_blocks_for_all(
    num_shards, each, most_actors, expected
):
    assert score_pool.shards_a_block(num_shards, num_shards * each, most_actors) == expected
