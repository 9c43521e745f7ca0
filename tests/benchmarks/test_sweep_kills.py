"""A kill's cost is read from a log of steps; another result or a late save fails the record."""

import pytest

from benchmarks.sweep_kills import Step, lost, read_steps, tell


def log(*processes: tuple[int, int, float]) -> list[Step]:
    """Steps of one second each: of each process its number, how many, and when they begin."""
    return [
        Step(begin_s + at, pid, "node") for pid, count, begin_s in processes for at in range(count)
    ]


@pytest.mark.parametrize(
    ("steps", "killed_s", "expected"),
    [
        # Saved after 5 of 7 steps: the sixth began at 5 s and the kill came at 6.5 s.
        (log((1, 7, 0.0), (2, 5, 20.0)), 6.5, (2, 1.5)),
        # Saved with the very last step.
        (log((1, 7, 0.0), (2, 3, 20.0)), 7.0, (0, 0.0)),
        # It outlived its driver, to 6 s, and its third process was never hit.
        (log((1, 7, 0.0), (2, 4, 20.0), (3, 2, 30.0)), 4.0, (3, 2.0)),
    ],
)
def test_what_is_lost_goes_from_the_first_step_done_twice_to_the_kill(steps, killed_s, expected):
    assert lost(steps, 10, 1, killed_s) == expected


def test_steps_that_are_missing_or_not_the_victims_are_no_loss_that_can_be_told():
    with pytest.raises(AssertionError, match="-1 steps done twice"):
        lost(log((1, 9, 0.0)), 10, 1, 9.0)
    with pytest.raises(AssertionError, match="3 steps done twice, 2 by the victim"):
        lost(log((1, 2, 0.0), (2, 11, 20.0)), 10, 1, 2.0)


def test_steps_are_read_as_they_are_written(tmp_path):
    (tmp_path / "0.steps").write_text("1.5 7 abc\n2.5 8 abd\n")
    assert read_steps(tmp_path / "0.steps") == [Step(1.5, 7, "abc"), Step(2.5, 8, "abd")]
    assert read_steps(tmp_path / "1.steps") == []


@pytest.mark.parametrize(
    ("lost_s", "accuracy", "status"), [(2.9, 0.5, 0), (3.1, 0.5, 1), (0, 0.6, 1)]
)
def test_a_record_fails_by_another_result_or_by_more_lost_than_the_interval(
    lost_s, accuracy, status, capsys
):
    def row(kind, moment, accuracy):
        return {
            "kind": kind, "moment": moment, "needed": 10, "twice": 1, "lost_s": lost_s,
            "rows": [{"trial": "a", "test_accuracy": accuracy}],
        }  # fmt: skip

    assert tell([row("trial", None, 0.5), row("driver", 4, accuracy)], 3.0) == status
    assert ("NO" in capsys.readouterr().out) == (accuracy != 0.5)
