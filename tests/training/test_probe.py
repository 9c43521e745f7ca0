import numpy as np
import pytest
import torch
from torch import nn

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.training.models import build_network
from raygrad.training.probe import PROBE_COLUMNS, Bound, Probe, check_gradients
from tests.training.test_loop import SPEC, examples, make_loop, weights


def watched(**recipe):
    """A loop with a probe of 12 and a bound, and both."""
    loop = make_loop(bound_epochs=(2, 4), bound_batches=5, **recipe)
    probe = Probe(loop._train, loop._normalize, 12, seed=3)
    bound = Bound(loop._train, loop._normalize, loop._config, seed=3)
    loop._observers = (probe, bound)
    return loop, probe, bound


def test_the_probe_is_the_gradient_norms_of_single_examples_after_each_epoch():
    loop, probe, _ = watched(epochs=2)
    keys, snapshots = [f"k{i}" for i in range(50)], []
    loop.run(lambda loop: snapshots.append(loop.state_dict()["network"]))
    table = probe.table(keys)
    assert table["epoch"].to_pylist() == [1] * 12 + [2] * 12
    assert table["key"].to_pylist() == [f"k{at}" for at in probe.positions] * 2
    last = str(len(loop._network) - 1)
    for epoch, state in enumerate(snapshots):
        network = build_network("cnn", SPEC, 0).double().eval()
        network.load_state_dict(state)
        at = torch.from_numpy(probe.positions)
        images = loop._normalize(loop._train.images[at]).double()
        expected = loop_grad_norms(
            network, images, loop._train.labels[at], PROBE_COLUMNS, last_layer=last
        )
        part = table.slice(epoch * 12, 12)
        for name in PROBE_COLUMNS:
            np.testing.assert_allclose(part[name].to_numpy(), expected[name], rtol=2e-4)
        losses = nn.functional.cross_entropy(
            network(images), loop._train.labels[at], reduction="none"
        )
        np.testing.assert_allclose(part["loss"].to_numpy(), losses.detach(), rtol=2e-4)


def test_the_sample_follows_from_the_seed_and_is_all_where_there_are_fewer():
    train, normalize = examples(20, 1), None
    assert Probe(train, normalize, 5, 1).positions.tolist() == (
        Probe(train, normalize, 5, 1).positions.tolist()
    )
    assert Probe(train, normalize, 5, 1).positions.tolist() != (
        Probe(train, normalize, 5, 2).positions.tolist()
    )
    assert Probe(train, normalize, 512, 1).positions.tolist() == list(range(20))


def test_the_bound_holds_for_each_batch_at_the_chosen_epochs_only():
    loop, _, bound = watched()
    loop.run()
    table = bound.table()
    assert table["epoch"].to_pylist() == [2] * 5 + [4] * 5
    assert table["batch"].to_pylist() == list(range(5)) * 2
    small, large = table["norm_of_sum"].to_numpy(), table["sum_of_norms"].to_numpy()
    assert (small > 0).all()
    assert (small <= large * (1 + 1e-6)).all()


def test_watching_changes_no_bit_of_the_training():
    loop, *_ = watched()
    plain = make_loop()
    loop.run()
    plain.run()
    assert torch.equal(weights(loop), weights(plain))


def test_what_was_measured_survives_a_restart_within_an_epoch():
    whole, probe, bound = watched()
    saved = []
    whole.run(after_step=lambda loop: saved.append(loop.state_dict()))
    resumed, probe_after, bound_after = watched()
    resumed.load_state_dict(saved[8])
    resumed.run()
    keys = [str(i) for i in range(50)]
    assert probe_after.table(keys).equals(probe.table(keys))
    assert bound_after.table().equals(bound.table())


def test_training_without_a_bound_leaves_an_empty_table():
    train = examples(20, 1)
    assert Bound(train, None, TrainConfig(), 1).table().num_rows == 0


def test_a_network_without_per_example_gradients_is_refused_before_training():
    loop = make_loop()

    class CoupledNet(nn.Module):
        """Its logits mix the examples of a batch."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, images):
            logits = self.linear(images.flatten(1))
            return logits - logits.mean(0)

    with pytest.raises(ConfigError, match="probe_size=0, bound_epochs="):
        check_gradients(CoupledNet(), loop._train, loop._normalize)
