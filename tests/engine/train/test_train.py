"""Training with Ray Train: what ends it, and how that is said."""

import dataclasses
import logging
import os
import signal
import threading
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import ray
import torch

from raygrad import pipeline
from raygrad.config import SelectConfig, TrainConfig
from raygrad.engine.relay import Board
from raygrad.engine.sweep import trial_process
from raygrad.engine.train import job, telling
from raygrad.engine.train.job import train
from raygrad.engine.train.telling import Telling
from raygrad.errors import RaygradError
from raygrad.training import arithmetic, trackers
from raygrad.training.checkpoints import load_checkpoint
from tests.cases import make_tiny_config
from tests.engine.score import faulty_networks
from tests.engine.sweep.sweeping import make_data
from tests.engine.train.training_tasks import make_task
from tests.report.no_pictures import no_pictures


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


def test_ctrl_c_ends_a_training_in_a_ray_that_goes_on(ray_session, tmp_path, sigint_heard):
    """Its workers give their CPUs back, and Ctrl-C is again what it was before."""
    slow = faulty_networks.name("slow", tmp_path, 0)
    config = TrainConfig(network=slow, epochs=10_000, patience=10_000, save_interval_s=0.0)
    handler = signal.getsignal(signal.SIGINT)

    def interrupt():
        try:
            wait_for(lambda: list((tmp_path / "ray").glob("*.state")))
        finally:  # the training would take hours
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        train(make_task(tmp_path, config), make_data())
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
    wait_for(lambda: ray.available_resources().get("CPU", 0) == 2)


def wait_for(condition, seconds=60):
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_bf16_on_a_cpu_without_it_is_said_by_every_stage_that_computes(
    ray_session, tmp_path, caplog, monkeypatch
):
    config = make_tiny_config(tmp_path)
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, epochs=1, numerics="bf16"),
        score=dataclasses.replace(config.score, numerics="bf16"),
        select=SelectConfig(methods=("random",), keep_fractions=(0.05,), seeds=(0,)),
    )
    monkeypatch.setattr(arithmetic, "cpu_supports_bfloat16", lambda: False)
    with no_pictures():
        pipeline.run(config)
    said = [r.message.split(":")[0] for r in caplog.records if "bf16 is emulated" in r.message]
    assert said == ["train", "score", "sweep"]


@pytest.mark.parametrize(
    ("numerics", "on_gpu", "has_it"),
    [("exact", False, False), ("bf16", True, False), ("bf16", False, True), ("tf32", True, False)],
)
def test_arithmetic_that_is_there_is_not_warned_of(numerics, on_gpu, has_it, caplog, monkeypatch):
    monkeypatch.setattr(arithmetic, "cpu_supports_bfloat16", lambda: has_it)
    arithmetic.tell_arithmetic("train", numerics, on_gpu)
    assert caplog.records == []


def test_what_a_setting_does_not_do_on_a_device_is_said(caplog):
    with caplog.at_level("INFO", "raygrad"):
        arithmetic.tell_arithmetic("train", "tf32", on_gpu=False)
        arithmetic.tell_arithmetic("score", "exact", on_gpu=True)
    assert [r.message.split(";")[0] for r in caplog.records] == [
        "train: tf32 is arithmetic of GPUs",
        "score: exact float32 with deterministic kernels",
    ]


def test_a_worker_computes_by_its_numerics(monkeypatch, tmp_path):
    """And what of the network's code has changed them is raised, as no restart would mend it."""
    seen = []
    monkeypatch.setattr(job.ray, "get", lambda given: given)
    monkeypatch.setattr(job.torch, "set_num_threads", lambda _: None)

    def train_on(device, board, task, data):
        seen.append((device.type, torch.backends.cudnn.conv.fp32_precision))
        torch.backends.cudnn.allow_tf32 = False
        return {}

    monkeypatch.setattr(job, "_train_on", train_on)
    given = {"data": make_data(), "use_gpu": False, "board": None}
    task = make_task(tmp_path, TrainConfig(numerics="exact"))
    with pytest.raises(RaygradError, match="numerics must stay"):
        job._train_worker({**given, "task": task})
    assert seen == [("cpu", "ieee")]
    assert torch.backends.cudnn.allow_tf32, "as torch has it"


def test_the_weights_of_chosen_epochs_are_kept(monkeypatch, tmp_path):
    """Those of the epoch, whatever comes after it; and of no other epoch."""
    monkeypatch.setattr(job, "_wrapped", lambda network, config: network)
    monkeypatch.setattr(job, "Telling", lambda *_: MagicMock())
    kept = {}
    for epochs in (1, 2):
        config = TrainConfig(network="linear", epochs=epochs, keep_epochs=(1, 2), batch_size=64)
        task = make_task(tmp_path / str(epochs), config)
        job._train_on(torch.device("cpu"), None, task, make_data())
        found = sorted((tmp_path / str(epochs)).glob("epoch-*.pt"))
        assert [path.name for path in found] == ["epoch-1.pt", "epoch-2.pt"][:epochs]
        kept[epochs] = [load_checkpoint(str(path)) for path in found]
    assert kept[1][0].digest() == kept[2][0].digest() != kept[2][1].digest()


def test_a_worker_that_died_is_told_in_whole_words():
    """Ray's text of several workers' errors is cut in the middle of a word."""
    died = RuntimeError("The actor died.\nIts process has ended. " + "Some common causes. " * 40)
    cut = ray.train.v2.api.exceptions.WorkerGroupError(f"[Rank 0]\n{str(died)[-300:]}", {0: died})
    assert str(job._named(cut)).startswith("training must finish, got Its process has ended. Some")


def test_a_long_epoch_tells_how_far_it_is(tmp_path, monkeypatch):
    """Every NOTE_S seconds, from the rate since the last time; the epoch's end tells for itself."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(telling.time, "monotonic", lambda: clock.now_s)
    board = Board()
    remote = SimpleNamespace(reach=SimpleNamespace(remote=board.reach))
    loop = SimpleNamespace(outcome=SimpleNamespace(epoch=2, step=2000), steps_per_epoch=1000)
    with Telling(loop, remote, TrainConfig(batch_size=64), "digest", str(tmp_path)) as told:
        board.drain()
        for now_s in range(1, 62):
            clock.now_s, loop.outcome.step = now_s, 2000 + 5 * now_s
            told.after_step(loop)
    assert board.drain() == [
        (0, "epoch 3, step 150 of 1000, 320 images/s, 170 s left of the epoch"),
        (0, "epoch 3, step 300 of 1000, 320 images/s, 140 s left of the epoch"),
    ]


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
    loop = SimpleNamespace(outcome=SimpleNamespace(epoch=2, step=0))
    with Telling(loop, remote, TrainConfig(track=("tensorboard",)), "digest", str(tmp_path)):
        pass
    assert board.drain()[-1] == (0, "tensorboard is told no more: no route to host")


def test_an_error_that_ends_a_training_is_told_to_its_trackers(tmp_path, monkeypatch):
    ended = []
    fake = SimpleNamespace(close=ended.append)
    monkeypatch.setattr(trackers, "TensorBoard", lambda *_: fake)
    remote = SimpleNamespace(reach=SimpleNamespace(remote=lambda *_: None))
    loop = SimpleNamespace(outcome=SimpleNamespace(epoch=0, step=0))
    config = TrainConfig(track=("tensorboard",))
    with Telling(loop, remote, config, "digest", str(tmp_path)):
        pass
    with pytest.raises(RaygradError), Telling(loop, remote, config, "digest", str(tmp_path)):
        raise RaygradError("diverged")
    assert ended == [False, True]


def test_rays_metrics_hear_of_every_image_and_of_the_accuracy(tmp_path, monkeypatch):
    heard = {}

    class Metric:
        def __init__(self, name, _):
            self._name = name

        def inc(self, by):
            heard[self._name] = heard.get(self._name, 0) + by

        def set(self, value):
            heard[self._name] = value

    fakes = SimpleNamespace(Counter=Metric, Gauge=Metric)
    monkeypatch.setattr(telling, "metrics", fakes)
    remote = SimpleNamespace(reach=SimpleNamespace(remote=lambda *_: None))
    rows = [{"epoch_time_s": 1.0, "val_accuracy": 0.5}, {"epoch_time_s": 1.0, "val_accuracy": 0.7}]
    outcome = SimpleNamespace(epoch=0, step=0, history=[], best_val_accuracy=0.7)
    loop = SimpleNamespace(outcome=outcome)
    told = Telling(loop, remote, TrainConfig(), "digest", str(tmp_path))
    for row in rows:
        outcome.history.append(row)
        told.after_epoch(loop, 300)
    assert heard == {"raygrad_images_trained": 600, "raygrad_val_accuracy": 0.7}
    monkeypatch.setattr(trial_process, "metrics", fakes)
    trial_process._count({"examples_seen": 40})
    trial_process._count({"examples_seen": 50})
    assert heard["raygrad_trials_finished"] == 2
    assert heard["raygrad_images_retrained"] == 90
