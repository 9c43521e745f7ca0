"""Two ranks over gloo against one process: the same gradient, curve, dynamics and restart."""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from raygrad.training.dynamics import DYNAMICS_COLUMNS, Dynamics
from raygrad.training.loop import device_of
from raygrad.training.probe import Probe
from tests.preloaded import started
from tests.training.test_loop import make_loop, weights

# 50 examples in batches of 12 and 13: ranks' shares differ. A batch of one leaves a rank without.
CASES = {
    "mlp": {"network": "mlp"},
    "augmented, in parts": {"network": "mlp", "augment": "shift_flip", "micro_batch": 4},
    "lonely": {"network": "mlp", "batch_size": 1, "learning_rate": 0.01},
}


def trained(case, n=50, stop_at=None, state=None):
    """Trains in this process or as a rank; returns weights, losses, dynamics, probe, a state."""
    loop = make_loop(n=n, **CASES[case])
    dynamics = Dynamics(n, device_of(loop._network))
    probe = Probe(loop._train, loop._normalize, 11, seed=3)
    loop._observers = (dynamics, probe)
    if dist.is_initialized():
        loop._ddp = DistributedDataParallel(loop._network)
    if state is not None:
        loop.load_state_dict(state)
    saved = []

    def after_step(loop):
        if loop.outcome.step == stop_at:
            saved.append(loop.state_dict())

    out = loop.run(after_step=after_step)
    return {
        "weights": weights(loop),
        "losses": [row["train_loss"] for row in out.history],
        "accuracies": [row["val_accuracy"] for row in out.history],
        "seen": out.examples_seen,
        "dynamics": dynamics.columns(),
        "probe": probe.table([str(i) for i in range(n)]).to_pydict(),
        "state": saved[0] if saved else None,
    }


ROOT = Path(__file__).parents[2]
RANK = """
import sys
from tests.training.test_ddp import rank_main
rank_main(int(sys.argv[1]), 2, int(sys.argv[2]), sys.argv[3])
"""
STOPPED = "augmented, in parts", 50
"""What is stopped within its second epoch, and gone on with."""
FOLLOWED = [("mlp", 50), ("augmented, in parts", 49), ("lonely", 12)]


def rank_main(rank, world_size, port, folder):
    """Trains all that the tests look at, one after another: processes take longer than training."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    for case, n in FOLLOWED:
        torch.save(trained(case, n), f"{folder}/{case}-{rank}.pt")
    case, n = STOPPED
    torch.save(trained(case, n, stop_at=6), f"{folder}/whole-{rank}.pt")
    dist.barrier()
    # As a restart has it: the state of one rank is that of all.
    whole = torch.load(f"{folder}/whole-0.pt", weights_only=False)
    torch.save(trained(case, n, state=whole["state"]), f"{folder}/resumed-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    """Returns what each of two ranks gave, by the name of what it did."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [
        started(["-c", RANK, str(rank), str(port), str(folder)], environment, ROOT)
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            said = rank.stderr.read()
            assert rank.wait(30) == 0, said
    finally:
        for rank in ranks:  # one alone would wait for the other
            rank.send_signal(signal.SIGKILL)
    return lambda name: [
        torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(2)
    ]


@pytest.mark.parametrize(("case", "n"), FOLLOWED)
def test_two_ranks_follow_one_with_the_same_global_batch(on_two_ranks, case, n):
    """Up to float32 rounding, 1e-4 relative; also where a rank has no example in a batch."""
    alone, (first, second) = trained(case, n), on_two_ranks(case)
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert first["accuracies"] == alone["accuracies"]
    assert first["seen"] == alone["seen"] == 4 * n
    for name in DYNAMICS_COLUMNS:
        np.testing.assert_array_equal(first["dynamics"][name], second["dynamics"][name])
        np.testing.assert_allclose(
            first["dynamics"][name], alone["dynamics"][name], rtol=2e-3, atol=1e-4
        )
    assert first["probe"] == second["probe"]
    for name, values in alone["probe"].items():
        if name != "key":
            assert first["probe"][name] == pytest.approx(values, rel=1e-3, abs=1e-5)


def test_two_ranks_go_on_within_an_epoch_bit_identically_and_alone_closely(on_two_ranks):
    whole, resumed = on_two_ranks("whole")[0], on_two_ranks("resumed")[0]
    assert torch.equal(resumed["weights"], whole["weights"])
    assert resumed["losses"] == whole["losses"]
    for name in DYNAMICS_COLUMNS:
        np.testing.assert_array_equal(resumed["dynamics"][name], whole["dynamics"][name])
    fewer = trained(*STOPPED, state=whole["state"])
    torch.testing.assert_close(fewer["weights"], whole["weights"], rtol=1e-4, atol=1e-5)
    assert fewer["losses"] == pytest.approx(whole["losses"], rel=1e-4)
