"""Which failures are followed by another attempt: those that got on, and lost nodes, always."""

from raygrad.engine.retries import NODE_LOST, Retries, final_error
from raygrad.errors import ConfigError, IncompleteError, RaygradError
from raygrad.storage import files

BROKEN = RuntimeError("broken on purpose")
LOST = RuntimeError(f"The actor died because {NODE_LOST}. Node Id: 0a")


class PreemptedError(RuntimeError):
    preempted = True


def test_only_attempts_in_a_row_without_progress_are_counted(tmp_path):
    state = tmp_path / "state"
    retries = Retries(2, str(state), None)
    for size in range(1, 30):  # thirty attempts, each of which got on
        state.write_bytes(b"s" * size)
        assert retries.goes_on([BROKEN])
    assert [retries.goes_on([BROKEN]) for _ in range(3)] == [True, True, False]


def test_what_was_saved_by_an_earlier_driver_is_no_progress(tmp_path):
    state = tmp_path / "state"
    state.write_bytes(b"saved")
    url = str(state)
    retries = Retries(0, url, files.states([url])[url])
    assert not retries.goes_on([BROKEN])


def test_a_lost_node_never_counts_also_beside_the_errors_that_it_causes(tmp_path):
    retries = Retries(1, str(tmp_path / "state"), None)
    for errors in ([LOST], [BROKEN, LOST], [PreemptedError("drained")]) * 5:
        assert retries.goes_on(errors)
    assert [retries.goes_on([BROKEN]) for _ in range(2)] == [True, False]


def test_what_comes_of_the_recipe_is_not_tried_again_and_storage_that_is_away_is(tmp_path):
    diverged, away = RaygradError("loss must stay finite"), IncompleteError("no answer")
    wrapped = RuntimeError("RayTaskError")
    wrapped.cause = diverged
    assert final_error([BROKEN, wrapped]) is diverged
    assert final_error([away, BROKEN]) is None
    retries = Retries(5, str(tmp_path / "state"), None)
    assert not retries.goes_on([diverged])
    assert not retries.goes_on([ConfigError("another network")])
    assert retries.goes_on([away])


def test_storage_that_does_not_answer_is_not_taken_for_progress(tmp_path, monkeypatch):
    def away(_):
        raise IncompleteError("no answer")

    state = tmp_path / "state"
    state.write_bytes(b"saved")
    retries = Retries(0, str(state), (5, "before"))
    monkeypatch.setattr(files, "states", away)
    assert not retries.goes_on([BROKEN])
