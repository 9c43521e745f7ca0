"""Progress lines: counts, rates, and the time that is left."""

import logging

import pytest

from raygrad import progress
from raygrad.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog):
    """Returns the lines logged so far."""
    caplog.set_level(logging.INFO, "raygrad")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_line_tells_count_rate_and_what_is_left(clock, lines):
    shown = Progress("score", 100, "images")
    clock[0] = 5.0
    shown.add(20, "2 actors")
    clock[0] = 25.0
    shown.add(80)
    assert lines() == [
        "score: 20 of 100 images, 4 images/s, 20 s left, 2 actors",
        "score: 100 of 100 images, 4 images/s, done in 25.0 s",
    ]


def test_lines_come_at_most_every_interval(clock, lines):
    shown = Progress("score", 100, "images", interval_s=2.0)
    for second in range(1, 6):
        clock[0] = float(second)
        shown.add(1)
    assert len(lines()) == 2


def test_what_is_left_goes_by_work_where_units_differ(clock, lines):
    """The longest retrainings run first: by their number alone, hours would seem to be left."""
    shown = Progress("sweep", 4, "trials", work=130)
    clock[0] = 100.0
    shown.add(1, work=100)
    clock[0] = 120.0
    shown.add(1, work=20)
    assert [line.split(", ")[2] for line in lines()] == ["30 s left", "10 s left"]


def test_what_was_lost_is_no_progress(clock, lines):
    shown = Progress("score", 10, "images")
    clock[0] = 5.0
    shown.add(5)
    shown.add(-5, "shard 3 is tried again")
    clock[0] = 20.0
    shown.add(10)
    assert lines()[1:] == [
        "score: shard 3 is tried again",
        "score: 10 of 10 images, 0.5 images/s, done in 20.0 s",
    ]
