"""Whatever dies, training ends as if nothing had: real workers, a real node."""

import contextlib
import functools
import json
import re
import time
from pathlib import Path

import pytest
import torch

from raygrad.config import TrainConfig
from raygrad.engine.train.job import train
from raygrad.errors import IncompleteError
from raygrad.training.checkpoints import load_checkpoint
from raygrad.training.loop import TrainingLoop
from raygrad.training.models import build_network
from tests.engine.lost_nodes import has_files, losing_a_node
from tests.engine.score import faulty_networks
from tests.engine.sweep.sweeping import make_data
from tests.engine.train.training_tasks import make_sharded, make_task

pytestmark = pytest.mark.timeout(900)

RECIPE = TrainConfig(
    epochs=6,
    batch_size=16,
    lr_decay_epochs=(4,),
    patience=6,
    augment="shift",
    dynamics=True,
    save_interval_s=0.0,
)


def recipe(network, **values):
    return TrainConfig(**{**vars(RECIPE), "network": network, **values})


def outcome(folder):
    """What a training left: weights, and its history without times."""
    weights = load_checkpoint(str(folder / "best.pt")).weights
    metrics = json.loads((folder / "metrics.json").read_text())
    history = [{**row, "epoch_time_s": None} for row in metrics["history"]]
    return torch.cat([w.flatten() for w in weights.values()]), history, metrics


def test_killed_workers_change_no_bit_of_what_comes_out(ray_session, tmp_path, caplog):
    """SIGKILL of rank 0 and, after the restart, of rank 1, in the middle of epochs."""
    faults = tmp_path / "faults"
    faults.mkdir()
    config = recipe(faulty_networks.name("kills_ranks", faults, 2))
    found = []
    for name in ("disturbed", "undisturbed"):  # in the second, the faults are used up
        with caplog.at_level("INFO", "raygrad"):
            train(make_task(tmp_path / name, config), make_data())
        assert len(list(faults.iterdir())) == 2
        found.append(outcome(tmp_path / name))
        assert found[-1][2]["world_size"] == 2
    # A state is written beside the loop: an epoch's may not be there when its ranks are killed.
    *disturbed, undisturbed = map(int, re.findall(r"2 workers begin after epoch (\d)", caplog.text))
    assert len(disturbed) == 3, "both restarts were said"
    assert disturbed == sorted(disturbed)
    assert undisturbed == 0
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    names = ("disturbed", "undisturbed")
    dynamics = [(tmp_path / name / "dynamics.parquet").read_bytes() for name in names]
    assert dynamics[0] == dynamics[1]


@pytest.mark.slow
def test_killed_workers_that_stream_end_as_from_memory_and_leave_no_process(ray_session, tmp_path):
    """SIGKILL of rank 0 and of rank 1 within epochs, each of which has a process that decodes.

    The same bits as out of memory without a kill, images mixed through a buffer of a fifth of them.
    """
    faults = tmp_path / "faults"
    faults.mkdir()
    config = recipe(faulty_networks.name("kills_ranks", faults, 2), shuffle_buffer=50, loaders=1)
    in_memory, streamed = make_sharded(tmp_path)
    found = []
    for name, data in (("streamed", streamed), ("memory", in_memory)):
        train(make_task(tmp_path / name, config), data)
        assert len(list(faults.iterdir())) == 2
        found.append(outcome(tmp_path / name))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    begun_s = time.monotonic()
    while loaders := decoding_processes():
        assert time.monotonic() - begun_s < 30, (
            f"processes that decode outlived their rank: {loaders}"
        )
        time.sleep(0.5)


def decoding_processes():
    """Processes beside ranks, of this checkout."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if b"multiprocessing.forkserver" in line and (entry / "cwd").resolve() == Path.cwd():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.long(seconds=25)
def test_an_elastic_run_that_loses_a_node_goes_on_with_fewer_workers(tmp_path):
    """And it follows the curve of one process, as the global batch stays what it was."""
    config = recipe(faulty_networks.name("slow", tmp_path, 0), min_workers=1, num_workers=2)
    folder = tmp_path / "run"
    task = make_task(folder, config)
    is_time = functools.partial(has_files, folder / "ray", "*.state", 1)
    losing_a_node(_train, is_time, task)
    _, history, metrics = outcome(folder)
    assert metrics["world_size"] == 1
    data = make_data()
    loop = TrainingLoop(
        build_network("linear", data.spec, config.seed),
        config,
        data.normalize,
        data.examples("train"),
        data.examples("val"),
        order_seed=config.seed,
    )
    for row, alone in zip(history, loop.run().history, strict=True):
        assert row["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
        assert row["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.long(seconds=40)
def test_an_elastic_run_with_too_few_nodes_says_so_and_ends_after_the_bound(tmp_path):
    """Ray asks for no room then, and waits for ever; on nodes that are selected by a label."""
    config = recipe(
        faulty_networks.name("slow", tmp_path, 0),
        min_workers=2,
        num_workers=2,
        nodes=("raygrad=!score",),
    )
    folder = tmp_path / "run"
    is_time = functools.partial(has_files, folder / "ray", "*.state", 1)
    losing_a_node(_train_in_vain, is_time, make_task(folder, config))
    said = (folder / "said.txt").read_text()
    assert said.startswith(
        "train must find 2 x 1 CPU among nodes of raygrad=!score free within 6 s"
    )
    assert not (folder / "best.pt").exists()


def _train_in_vain(task):
    with pytest.raises(IncompleteError) as error:
        train(task, make_data(), 6.0)
    Path(task.folder).parent.joinpath("said.txt").write_text(str(error.value))


def _train(task):
    train(task, make_data())
    assert not Path(task.state_url).exists()
