"""Trainings are told of where people watch them, and no tracker can stop one."""

import struct
import sys
from types import SimpleNamespace

import pytest

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.training import trackers
from raygrad.training.trackers import Trackers, check_installed

ROWS = [
    {"epoch": 1, "train_loss": 2.0, "val_accuracy": 0.5, "epoch_time_s": 1.5},
    {"epoch": 2, "train_loss": 1.0, "epoch_time_s": 1.25},
]
"""Two epochs of a history; the second was not validated."""


def scalars(folder):
    """Reads event files without the writer's own code: records of length, check, event, check."""
    from tensorboardX.proto.event_pb2 import Event

    found, purged = {}, None
    for file in sorted(folder.glob("events.*"), key=lambda file: file.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                purged = event.step
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found, purged


def test_tensorboard_shows_every_number_of_every_epoch(tmp_path):
    told = Trackers(TrainConfig(track=("tensorboard",)), "digest", str(tmp_path))
    for row in ROWS:
        told.log(row)
    told.close()
    expected = {(k, r["epoch"]): v for r in ROWS for k, v in r.items() if k != "epoch"}
    assert scalars(tmp_path)[0] == pytest.approx(expected)


def test_a_restarted_training_takes_back_what_it_will_tell_again(tmp_path):
    config = TrainConfig(track=("tensorboard",))
    for first, rows in ((0, ROWS), (1, ROWS[1:])):
        told = Trackers(config, "digest", str(tmp_path), first)
        for row in rows:
            told.log(row)
        told.close()
    assert scalars(tmp_path)[1] == 2


def test_a_tracker_that_is_not_installed_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"track wandb needs the package wandb, .* pip install"):
        check_installed(("wandb",))


def test_a_tracker_that_fails_is_left_and_the_others_are_told(tmp_path, monkeypatch, caplog):
    def fail(**_):
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fail, __spec__=object()))
    told = Trackers(TrainConfig(track=("wandb", "tensorboard")), "digest", str(tmp_path))
    told.log(ROWS[0])
    told.close()
    assert "wandb is told no more: no route to host" in caplog.text
    assert len(scalars(tmp_path)[0]) == 3


@pytest.mark.parametrize("failed", [False, True])
def test_a_training_that_fails_ends_so_where_it_is_watched(tmp_path, monkeypatch, failed):
    ended = []
    run = SimpleNamespace(finish=lambda exit_code: ended.append(("wandb", exit_code)))
    client = SimpleNamespace(
        get_experiment_by_name=lambda _: SimpleNamespace(experiment_id="0"),
        search_runs=lambda *_: [],
        create_run=lambda *_, **__: SimpleNamespace(info=SimpleNamespace(run_id="1")),
        log_param=lambda *_: None,
        set_terminated=lambda run_id, status: ended.append(("mlflow", status)),
    )
    fakes = {
        "wandb": SimpleNamespace(init=lambda **_: run, __spec__=object()),
        "mlflow": SimpleNamespace(MlflowClient=lambda: client, __spec__=object()),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    Trackers(TrainConfig(track=("mlflow", "wandb")), "digest", str(tmp_path)).close(failed)
    assert ended == [("mlflow", "FAILED" if failed else "FINISHED"), ("wandb", int(failed))]


def test_mlflow_keeps_one_run_for_a_training_and_its_restart(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    config = TrainConfig(track=("mlflow",), learning_rate=0.125)
    for epoch, row in enumerate(ROWS):
        told = Trackers(config, "digest", str(tmp_path), epoch)
        told.log(row)
        client = mlflow.MlflowClient()
        [run] = client.search_runs([client.get_experiment_by_name("raygrad").experiment_id])
        assert run.info.status == "RUNNING"
        told.close(failed=epoch == 0)
    [run] = client.search_runs([client.get_experiment_by_name("raygrad").experiment_id])
    assert run.info.status == "FINISHED", "the restart went well"
    assert run.data.params["learning_rate"] == "0.125"
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.0)]


def test_weights_and_biases_is_told_offline_too(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    told = Trackers(TrainConfig(track=("wandb",)), "digest", str(tmp_path))
    for row in ROWS:
        told.log(row)
    told.close()
    [written] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train_loss" in written.read_bytes()
