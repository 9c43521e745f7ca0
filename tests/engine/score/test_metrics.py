"""The counter of examples scored, against what was scored."""

from types import SimpleNamespace

import pytest

from raygrad.engine.score import actor
from raygrad.engine.score.actor import ShardScorer


@pytest.fixture
def counted(monkeypatch):
    """Returns an actor without a cluster, and the list of what its counter was given."""
    clock = [0.0]
    monkeypatch.setattr(actor.time, "monotonic", lambda: clock[0])
    scorer, given = ShardScorer.__new__(ShardScorer), []
    scorer._board = SimpleNamespace(progress=SimpleNamespace(remote=lambda *_: None))
    scorer._count = SimpleNamespace(inc=given.append)
    scorer._rate = SimpleNamespace(set=lambda _: None)
    return scorer, given, clock


def test_the_counter_is_what_was_scored_to_the_last_batch(counted):
    """At 1,700 images a second most batches, and the last of each shard, come between posts."""
    scorer, given, clock = counted
    for shard in range(4):
        post = scorer._posting(str(shard), lambda: None)
        for done in [*range(128, 1281, 128), 1300]:
            clock[0] += 128 / 1700
            post(done)
    assert sum(given) == 4 * 1300


def test_rejected_examples_are_not_counted_and_nothing_is_counted_twice(counted):
    scorer, given, _ = counted
    post = scorer._posting("a", lambda: None)
    post(10, 3)
    post(12, 5)
    post(20, 5)
    assert sum(given) == 15
    assert min(given) > 0
