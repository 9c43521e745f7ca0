"""Two shards of an actor at a time: read and decoded ahead, in order, with the room of one."""

import threading
import time

import numpy as np
import pytest

from raygrad.data.reading import EncodedExample
from raygrad.engine.score import actor as scoring_actor
from raygrad.engine.score.actor import ShardWork
from raygrad.engine.score.lane import BATCHES_AHEAD, DecodeLane
from raygrad.errors import DataError
from raygrad.runs import score_table
from tests.engine.score.scoring_cases import by_key, make_shards, make_task

PIXELS = np.zeros((4, 4, 3), np.uint8)
WAIT_S = 20
SHARDS = ("own-000", "own-001", "own-002", "own-003")


def quiet(*told):
    """Progress that nobody watches."""


def examples(shard, count, read=quiet):
    """Yields encoded examples of a shard, and tells when one is read."""
    for at in range(count):
        read(shard, at)
        yield EncodedExample(f"{shard}-{at}", shard, at, at % 3, b"")


def until(condition):
    """Waits until something holds."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.005)


def test_the_next_shard_is_decoded_while_one_is_scored_and_room_is_shared():
    """What is decoded and not yet taken is bounded over both shards, and comes in order."""
    lane, read, decoded = DecodeLane(), [], []

    def decode(example):
        decoded.append(example.shard)
        return PIXELS

    def note(shard, at):
        read.append((shard, at))

    first = lane.shard(examples("a", 6, note), decode, 2, 1)
    second = lane.shard(examples("b", 40, note), decode, 2, 1)
    with first as one, second as two:
        until(lambda: ("b", 0) in read)
        assert "b" not in decoded, "its first bytes are asked for, and it waits for its turn"
        with one.turn() as batches:
            assert next(batches).keys == ["a-0", "a-1"]
            until(lambda: decoded.count("a") == 6)
            assert next(batches).keys == ["a-2", "a-3"]
            until(lambda: "b" in decoded)
            time.sleep(0.05)
            waiting = len(decoded) - 4
            assert waiting <= 2 * (BATCHES_AHEAD + 1), "as many as of one shard alone"
            assert [batch.keys for batch in batches] == [["a-4", "a-5"]]
        with two.turn() as batches:
            assert [key for batch in batches for key in batch.keys] == [
                f"b-{at}" for at in range(40)
            ]


def test_a_shard_that_fails_or_is_left_lets_the_next_one_through():
    """While it is read, while it is decoded, while it is scored, and before it was its turn."""
    lane = DecodeLane()

    def unreadable():
        raise DataError("the tar is cut")
        yield

    def undecodable(example):
        raise MemoryError

    left = lane.shard(examples("left", 40), lambda _: PIXELS, 2, 1)
    bad = lane.shard(unreadable(), lambda _: PIXELS, 2, 1)
    broken = lane.shard(examples("broken", 4), undecodable, 2, 1)
    good = lane.shard(examples("good", 4), lambda _: PIXELS, 2, 1)

    def take_one(shard):
        with shard as decoded, decoded.turn() as batches:
            next(batches)

    take_one(left)
    with pytest.raises(DataError):
        take_one(bad)
    with pytest.raises(MemoryError):
        take_one(broken)
    with lane.shard(examples("never", 4), lambda _: PIXELS, 2, 1):
        pass
    with good as decoded, decoded.turn() as batches:
        assert sum(len(batch.keys) for batch in batches) == 4


def test_who_waits_for_its_turn_says_that_it_lives():
    lane, said = DecodeLane(), threading.Event()
    first = lane.shard(examples("a", 2), lambda _: PIXELS, 2, 1)
    second = lane.shard(examples("b", 2), lambda _: PIXELS, 2, 1)

    def wait(decoded):
        with decoded.turn(said.set) as batches:
            assert len(list(batches)) == 1

    with first as one, second as two:
        with one.turn() as batches:
            thread = threading.Thread(target=wait, args=(two,), daemon=True)
            thread.start()
            assert said.wait(WAIT_S)
            assert len(list(batches)) == 1
        thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_part_is_written_while_the_next_shard_is_scored(tmp_path, monkeypatch):
    """The second shard's last batch is scored before the first one's part is there."""
    task = make_task(tmp_path, make_shards(tmp_path, 2))
    work, real, is_scored = ShardWork(task), score_table.write_part, threading.Event()

    def slow(url, shard, *rest, **options):
        if shard == "own-000":
            assert is_scored.wait(WAIT_S)
        real(url, shard, *rest, **options)

    monkeypatch.setattr(scoring_actor.score_table, "write_part", slow)
    first = threading.Thread(target=work.score, args=("own-000", quiet))
    first.start()
    status = work.score("own-001", lambda done, rejected: done == 12 and is_scored.set())
    first.join(WAIT_S)
    assert status.kind == "done"
    assert len(score_table.finished_parts(task.out_url, task.provenance)) == 2


def test_two_shards_at_a_time_give_the_bits_and_the_time_of_one_at_a_time(tmp_path):
    """Each example settled once; the seconds of the shards add up to no more than there were."""
    urls = make_shards(tmp_path, broken=("s1-003",))
    alone, task = make_task(tmp_path / "alone", urls), make_task(tmp_path / "beside", urls)
    one, work = ShardWork(alone), ShardWork(task)
    for shard in SHARDS:
        one.score(shard, quiet)
    found, start_s = {}, time.monotonic()

    def score(shards):
        for shard in shards:
            found[shard] = work.score(shard, quiet)

    threads = [threading.Thread(target=score, args=(SHARDS[at::2],)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    wall_s = time.monotonic() - start_s
    assert {status.kind for status in found.values()} == {"done"}
    assert sum(status.used for status in found.values()) == 47
    assert 0 < sum(status.time_s for status in found.values()) <= wall_s
    assert min(status.time_s for status in found.values()) > 0
    for each in (alone, task):
        score_table.write_manifest(each.out_url, SHARDS, each.provenance, 0.0)
    assert by_key(tmp_path / "beside") == by_key(tmp_path / "alone")
