"""The checker of fault schedules finds every kind of corruption, and none in a right run."""

import copy
import signal

import pytest

from benchmarks.fault_checks import SCORES, Outcome, Start, check

UNDISTURBED = {
    SCORES: [("'a'", "0", "0.25"), ("'b'", "1", "0.5"), ("'c'", "2", "nan")],
    "rejects": [("'d'", "'an image must be whole'")],
}
KILLED = 128 + signal.SIGKILL


def right():
    """A run whose driver was killed once and started again."""
    return Outcome(
        starts=[Start(KILLED, (KILLED,), 20.0), Start(0, (0,), 30.0)],
        seen={"part-own-00.parquet": ["f1"], "part-own-01.parquet": ["e2", "e2"]},
        tables=copy.deepcopy(UNDISTURBED),
        num_used=3,
        num_rejected=1,
        num_indexed=4,
    )


def test_a_run_that_is_right_is_found_right():
    assert check(right(), UNDISTURBED, 60.0) == []


def changed_score(one):
    one.tables[SCORES][1] = ("'b'", "1", "0.5000000001")


def lost_example(one):
    del one.tables[SCORES][0]


def uncounted_example(one):
    one.num_rejected = 0


def doubled_example(one):
    one.tables[SCORES].append(one.tables[SCORES][0])


def part_scored_again_to_other_scores(one):
    one.seen["part-own-00.parquet"].append("0a")


def half_written_part(one):
    one.torn.append("part-own-01.parquet: no Parquet footer")


def lost_table(one):
    del one.tables["rejects"]


def wrong_status(one):
    one.starts[0] = Start(1, (KILLED,), 20.0)


def traceback_shown(one):
    one.starts[1].has_traceback = True


def never_ended(one):
    one.starts[1].took_s = 3600.0


def never_complete(one):
    one.starts[1] = Start(3, (0, 3), 30.0)


def orphan(one):
    one.orphans.append("4711 ray::MapWorker")


def temporary_file(one):
    one.leftovers.append("scores/part-own-01.parquet.tmp")


@pytest.mark.parametrize(
    ("corrupt", "said"),
    [
        (changed_score, "scores: 1 rows that are not right, 1 right ones lack"),
        (lost_example, "scores: 0 rows that are not right, 1 right ones lack"),
        (uncounted_example, "used + rejected is 3 + 0, not the index's 4"),
        (doubled_example, "settled 2 times: 'a'"),
        (part_scored_again_to_other_scores, "to other scores: part-own-00.parquet"),
        (half_written_part, "half-written: part-own-01.parquet"),
        (lost_table, "rejects: lacks"),
        (wrong_status, f"start 0: status 1, not of ({KILLED},)"),
        (traceback_shown, "start 1: a traceback"),
        (never_ended, "start 1: took 3600 s, over 60 s"),
        (never_complete, "never complete after 2 starts"),
        (orphan, "process left: 4711"),
        (temporary_file, "file left: scores/part-own-01.parquet.tmp"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_corruption_is_caught(corrupt, said):
    planted = right()
    corrupt(planted)
    assert any(said in line for line in check(planted, UNDISTURBED, 60.0))
