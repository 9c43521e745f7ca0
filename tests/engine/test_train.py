"""Training with Ray Train: what ends it, and how that is said."""

import dataclasses
import logging
from types import SimpleNamespace

import pytest

from raygrad import pipeline
from raygrad.config import TrainConfig
from raygrad.engine.relay import Board
from raygrad.engine.telling import Telling
from raygrad.errors import RaygradError
from raygrad.training import trackers
from tests.cases import make_tiny_config


def test_a_diverging_recipe_ends_at_once_with_the_epoch_and_no_restart(
    ray_session, tmp_path, caplog
):
    config = make_tiny_config(tmp_path)
    train = dataclasses.replace(config.train, learning_rate=1e9, network="mlp")
    config = dataclasses.replace(config, train=train)
    pipeline.prepare(config)
    said = r"^training loss must stay finite, got (nan|inf) in epoch"
    with caplog.at_level(logging.INFO, "raygrad"), pytest.raises(RaygradError, match=said):
        pipeline.train(config)
    assert "train-mlp: complete" not in caplog.text


def test_progress_goes_back_to_where_a_restarted_worker_goes_on():
    board = Board()
    for done in (1, 2, 3):
        board.reach(done, "")
    board.reach(2, "")  # restarted from what was saved after two epochs
    board.reach(3, "")
    assert sum(count for count, _ in board.drain()) == 3
    assert board.drain() == []


def test_a_tracker_that_fails_is_said_to_who_started_the_training(tmp_path, monkeypatch):
    """Workers' own log lines stay in Ray's files."""

    def fail(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(trackers, "TensorBoard", fail)
    board = Board()
    remote = SimpleNamespace(reach=SimpleNamespace(remote=board.reach))
    loop = SimpleNamespace(outcome=SimpleNamespace(epoch=2))
    with Telling(loop, remote, TrainConfig(track=("tensorboard",)), "digest", str(tmp_path)):
        pass
    assert board.drain()[-1] == (0, "tensorboard is told no more: no route to host")


def test_an_error_that_ends_a_training_is_told_to_its_trackers(tmp_path, monkeypatch):
    ended = []
    fake = SimpleNamespace(close=ended.append)
    monkeypatch.setattr(trackers, "TensorBoard", lambda *_: fake)
    remote = SimpleNamespace(reach=SimpleNamespace(remote=lambda *_: None))
    loop = SimpleNamespace(outcome=SimpleNamespace(epoch=0))
    config = TrainConfig(track=("tensorboard",))
    with Telling(loop, remote, config, "digest", str(tmp_path)):
        pass
    with pytest.raises(RaygradError), Telling(loop, remote, config, "digest", str(tmp_path)):
        raise RaygradError("diverged")
    assert ended == [False, True]
