"""The saved state of a training: goes on bit for bit, saves in time, outlives storage's absence."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from raygrad.errors import IncompleteError
from raygrad.training import saved_state
from raygrad.training.retraining import retrain
from raygrad.training.saved_state import MOST_FAILED, StateFile
from tests.engine.sweep.sweeping import COMPARED, RECIPE, make_data
from tests.training.test_loop import make_loop, weights
from tests.training.test_retraining import TRIAL

LONGER = dataclasses.replace(RECIPE, epochs=6, patience=9)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the loop runs after it."""


class Dying(StateFile):
    """A state file of a process that dies at a step."""

    def __init__(self, url, step):
        super().__init__(url)
        self.step = step

    def save_if_due(self, loop):
        if loop.outcome.step == self.step:
            self._finish_writing()  # the write that is under way is another test's
            raise Killed
        super().save_if_due(loop)


def retrained(data, state=None):
    row = retrain(TRIAL, np.arange(100), LONGER, data, state=state)
    return {name: row[name] for name in COMPARED}, row["train_time_s"]


def test_a_trial_killed_at_three_moments_gives_the_row_of_an_undisturbed_one(tmp_path):
    """And counts the seconds of all its processes."""
    data, url = make_data(), str(tmp_path / "trial.state")
    undisturbed, _ = retrained(data)
    for step in sorted(random.Random(0).sample(range(8, 40), 3)):
        with pytest.raises(Killed):
            retrained(data, Dying(url, step))
        saved = torch.load(url, weights_only=True)
        assert step - 8 <= saved["loop"]["outcome"]["step"] < step, "an epoch at most is lost"
    earlier_s = saved["spent_s"]
    assert earlier_s > 0
    row, took_s = retrained(data, StateFile(url))
    assert row == undisturbed
    assert took_s > earlier_s


def test_what_is_saved_is_the_moment_of_saving_however_long_the_write_takes(tmp_path, monkeypatch):
    """The loop goes on while a thread writes."""
    url = str(tmp_path / "state")
    loop, reference, at_save = make_loop(), make_loop(), {}
    reference.run(lambda one: at_save.setdefault(one.outcome.epoch, weights(one).clone()))
    save, begun = torch.save, []

    def slow(values, stream):
        begun.append(values["loop"]["outcome"]["epoch"])
        threads_wait.wait(10)
        save(values, stream)

    threads_wait = saved_state.threading.Event()
    monkeypatch.setattr(saved_state.torch, "save", slow)
    state = StateFile(url, interval_s=1e-9)  # not 0, which waits for each write
    with state:
        loop.run(state.save_if_due)
        threads_wait.set()
    resumed = make_loop(seed=5)
    resumed.load_state_dict(StateFile(url).read())
    assert resumed.outcome.epoch == begun[0] < loop.outcome.epoch
    assert torch.equal(weights(resumed), at_save[begun[0]])


def test_storage_away_is_a_warning_until_several_saves_in_a_row_fail(tmp_path, monkeypatch):
    """The loop itself is not told: a save that failed is not a recipe that diverges."""
    answers = [False] * (MOST_FAILED - 1) + [True] + [False] * MOST_FAILED
    save, told = torch.save, []

    def sometimes(values, stream):
        if not answers.pop(0):
            raise IncompleteError("storage must answer within 120 s, got nothing.")
        save(values, stream)

    monkeypatch.setattr(saved_state.torch, "save", sometimes)
    loop = make_loop(epochs=50, patience=50)
    state = StateFile(str(tmp_path / "state"), warn=told.append)
    with (
        pytest.raises(IncompleteError, match=r"got 3 failures in a row.*must answer within"),
        state,
    ):
        loop.run(state.save_if_due)
    assert len(told) == 2 * MOST_FAILED - 1
    assert answers == []
    assert StateFile(str(tmp_path / "state")).read()["outcome"]["epoch"] == MOST_FAILED


def test_a_notice_saves_at_once_whatever_the_interval(tmp_path):
    url, heard = str(tmp_path / "state"), iter([False, True, False, False])
    told = []
    state = StateFile(url, 1e9, lambda: next(heard), told.append)
    loop = make_loop()
    loop.run(after_epoch=state.save_if_due)
    assert StateFile(url).read()["outcome"]["epoch"] == 2
    assert told == ["a node is to be taken away: the state is saved"]


def test_a_training_shorter_than_the_interval_saves_nothing(tmp_path):
    state = StateFile(str(tmp_path / "state"), 60.0)
    with state:
        make_loop().run(state.save_if_due, state.save_if_due)
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_raygrad_is_begun_anew_and_that_is_said(tmp_path):
    url, told = str(tmp_path / "state"), []
    torch.save(make_loop().state_dict(), url)
    assert StateFile(url, warn=told.append).read() is None
    assert told == [f"the saved state {url} is of another raygrad: it begins anew"]


@pytest.mark.parametrize("harm", ["empty", "cut", "garbage", "text", "a list"])
def test_a_state_that_is_damaged_is_begun_anew_and_that_is_said(tmp_path, harm):
    path, told = tmp_path / "state", []
    loop = make_loop()
    with StateFile(str(path), 0.0) as state:
        loop.run(state.save_if_due)
    whole = path.read_bytes()
    torch.save([1], path)
    kinds = {
        "empty": b"", "cut": whole[: len(whole) // 2], "garbage": b"hello world" * 50,
        "text": b"<html>", "a list": path.read_bytes(),
    }  # fmt: skip
    path.write_bytes(kinds[harm])
    assert StateFile(str(path), warn=told.append).read() is None
    (line,) = told
    assert line.startswith(f"the saved state {path} ")
    assert line.endswith(": it begins anew")
    assert "\n" not in line


def test_ranks_that_find_different_states_read_again(tmp_path, monkeypatch):
    """A process that is thought dead may replace the file between two ranks' reads."""
    url = str(tmp_path / "state")
    state = StateFile(url, 0.0)
    with state:
        step = make_loop().run(state.save_if_due).step
    others = iter([torch.tensor([1]), torch.tensor([step])])
    monkeypatch.setattr(saved_state.ranks, "gathered", lambda mine: [mine, next(others)])
    monkeypatch.setattr(saved_state, "_BETWEEN_READS_S", 0)
    assert state.read()["outcome"]["step"] == step
    monkeypatch.setattr(saved_state.ranks, "gathered", lambda mine: [mine, mine - 1])
    with pytest.raises(IncompleteError, match=f"same saved state, got steps .{step - 1}, {step}"):
        state.read()


def test_ranks_look_every_second_where_steps_are_slow_and_every_20_where_they_are_fast(
    monkeypatch, tmp_path
):
    now = [0.0]
    monkeypatch.setattr(saved_state.time, "monotonic", lambda: now[0])
    state = StateFile(str(tmp_path / "state"), 1e9)
    strides = []
    for each_s, step in ((0.001, 20), (0.25, 40), (5.0, 60)):
        now[0] += 20 * each_s
        strides.append(state._stride(step))
    assert strides == [20, 4, 1]
