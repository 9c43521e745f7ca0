import copy

import pytest
import torch
import torch.nn.functional as F

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError, DataError, RaygradError
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.optimizers import learning_rate_at
from raygrad.training.preprocess import Normalize, channel_statistics

SPEC = ImageSpec(1, 8, 8, 3)


def examples(n: int, seed: int) -> Examples:
    """Three classes, each a bright row of its own in noise: learnable, not trivial."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    images = torch.randint(0, 120, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(n), 0, labels * 2] += 60
    return Examples(images, labels)


def make_loop(
    network="cnn", n=50, seed=0, steps_per_epoch=None, min_validations=0, **recipe
) -> TrainingLoop:
    train = examples(n, seed=1)
    return TrainingLoop(
        build_network(network, SPEC, seed),
        TrainConfig(**{"epochs": 4, "batch_size": 16, "lr_decay_epochs": (3,), **recipe}),
        channel_statistics(train.images),
        train,
        examples(40, seed=2),
        order_seed=5,
        steps_per_epoch=steps_per_epoch,
        min_validations=min_validations,
    )


def weights(loop: TrainingLoop) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in loop._network.parameters()])


def test_a_step_is_the_mean_gradient_over_the_batch():
    """Plain SGD over one epoch equals a hand-written loop, to the last bit."""
    loop = make_loop("mlp", n=20, momentum=0.0, weight_decay=0.0, epochs=1, lr_decay_epochs=())
    network = copy.deepcopy(loop._network)
    order, train = DataOrder(20, 16, seed=5), loop._train
    network.train()
    for step in range(2):
        at = torch.from_numpy(order.batch(step))
        logits = network(loop._normalize(train.images[at]))
        loss = F.cross_entropy(logits, train.labels[at])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
    loop.run()
    expected = torch.cat([p.detach().flatten() for p in network.parameters()])
    torch.testing.assert_close(weights(loop), expected, rtol=1e-6, atol=1e-7)


def test_going_on_after_any_epoch_ends_bit_identical_to_never_having_stopped():
    undisturbed = make_loop()
    saved = []
    undisturbed.run(lambda loop: saved.append(loop.state_dict()))
    for state in saved[:-1]:
        resumed = make_loop(seed=9)
        resumed.load_state_dict(state)
        out = resumed.run()
        assert torch.equal(weights(resumed), weights(undisturbed))
        assert out.best_epoch == undisturbed.outcome.best_epoch


@pytest.mark.parametrize("more", [{}, {"augment": "shift_flip"}, {"numerics": "bf16"}])
def test_going_on_after_any_step_ends_bit_identical_to_never_having_stopped(more):
    """Also within an epoch: weights, dropout, data order, augmentation and the mean loss."""
    undisturbed, saved = make_loop(**more), []
    undisturbed.run(after_step=lambda loop: saved.append(loop.state_dict()))
    assert len(saved) == 4 * 3
    for state in saved[::2]:
        resumed = make_loop(seed=9, **more)
        torch.rand(3)
        resumed.load_state_dict(state)
        out = resumed.run()
        assert torch.equal(weights(resumed), weights(undisturbed))
        losses = [row["train_loss"] for row in out.history]
        assert losses == [row["train_loss"] for row in undisturbed.outcome.history]


def test_the_state_of_another_network_is_refused():
    state = make_loop("mlp").state_dict()
    with pytest.raises(ConfigError, match="saved training must be of network 'cnn'"):
        make_loop("cnn").load_state_dict(state)


def test_bf16_keeps_float32_weights_and_follows_float32_loosely():
    losses = {}
    for numerics in ("exact", "bf16"):
        loop = make_loop("mlp", numerics=numerics)
        losses[numerics] = [row["train_loss"] for row in loop.run().history]
        assert weights(loop).dtype == torch.float32
    assert losses["bf16"] != losses["exact"]
    assert losses["bf16"] == pytest.approx(losses["exact"], rel=0.03)


def test_channels_last_changes_rounding_only():
    losses = [
        [row["train_loss"] for row in make_loop(channels_last=layout).run().history]
        for layout in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_validations_lie_at_least_so_many_steps_apart_and_the_last_epoch_has_one():
    """50 examples by 16 are 4 steps an epoch: 9 steps are passed every third epoch."""
    out = make_loop(epochs=7, validation_steps=9).run()
    validated = [row["epoch"] for row in out.history if "val_accuracy" in row]
    assert validated == [3, 6, 7]
    assert out.best_epoch in validated
    every = make_loop(epochs=7).run()
    assert [row["train_loss"] for row in out.history] == [
        row["train_loss"] for row in every.history
    ]


def test_patience_ends_training_only_after_a_validation():
    """With a rate near 0 nothing gets better than the first validation, at epoch 3."""
    out = make_loop(epochs=40, patience=4, validation_steps=9, learning_rate=1e-12).run()
    assert (out.best_epoch, out.epoch) == (3, 9)


def test_a_retraining_is_validated_twenty_times_before_patience_may_end_it():
    """Whatever its size; where there are fewer epochs, after each of them."""
    seldom = make_loop(
        epochs=60, patience=4, validation_steps=100, learning_rate=1e-12, min_validations=20
    ).run()
    looks = [row["epoch"] for row in seldom.history if "val_accuracy" in row]
    assert looks == list(range(3, 61, 3))[: len(looks)]
    assert len(looks) == 20
    short = make_loop(epochs=7, validation_steps=100, min_validations=20).run()
    assert ["val_accuracy" in row for row in short.history] == [True] * 7


def test_the_best_epoch_is_chosen_on_validation_and_its_weights_are_restored():
    loop = make_loop(epochs=6)
    out = loop.run()
    history = [(row["val_accuracy"], -row["val_loss"]) for row in out.history]
    assert out.best_epoch == history.index(max(history)) + 1
    found = evaluate(loop._network, loop._normalize, loop._val)
    assert found.accuracy == out.best_val_accuracy
    assert found.loss == pytest.approx(out.best_val_loss, abs=1e-12)


def test_training_stops_when_patience_runs_out():
    loop = make_loop(epochs=50, patience=2, learning_rate=1e-12)
    out = loop.run()
    assert out.epoch == out.best_epoch + 2 < 50


def test_equal_steps_takes_the_full_number_of_updates_on_a_small_subset():
    loop = make_loop(n=5, steps_per_epoch=4, epochs=3, patience=3)
    out = loop.run()
    assert (out.step, out.epoch, out.examples_seen) == (12, 3, 60)


def test_the_learning_rate_is_decayed_when_its_epochs_begin():
    recipe = TrainConfig(learning_rate=1.0, lr_decay_epochs=(2, 4), lr_decay_factor=0.1)
    rates = [learning_rate_at(recipe, step, 2) for step in range(12)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_a_cosine_schedule_begins_at_the_rate_is_half_in_the_middle_and_ends_near_0():
    recipe = TrainConfig(learning_rate=1.0, schedule="cosine", epochs=10)
    rates = [learning_rate_at(recipe, step, 4) for step in range(40)]
    assert rates[0] == 1.0
    assert rates[20] == pytest.approx(0.5)
    assert 0 < rates[39] < 0.01
    assert rates == sorted(rates, reverse=True)


def test_a_warm_up_rises_linearly_and_never_stands_at_0():
    recipe = TrainConfig(learning_rate=1.0, warmup_epochs=1.5, lr_decay_epochs=())
    rates = [learning_rate_at(recipe, step, 2) for step in range(5)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])


def test_evaluation_does_not_depend_on_batches_and_leaves_the_mode(monkeypatch):
    loop, split = make_loop(), examples(37, seed=4)
    loop._network.train()
    whole = evaluate(loop._network, loop._normalize, split)
    monkeypatch.setattr("raygrad.training.loop.EVAL_BATCH_SIZE", 5)
    cut = evaluate(loop._network, loop._normalize, split)
    assert whole.accuracy == cut.accuracy
    assert whole.loss == pytest.approx(cut.loss, rel=1e-6)
    assert loop._network.training


def test_divergence_is_named():
    loop = make_loop(learning_rate=1e30, momentum=0.0)
    with pytest.raises(RaygradError, match="must stay finite, got nan in epoch"):
        loop.run()


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="training split must hold an example"):
        make_loop(n=0)


def test_channel_statistics_equal_those_of_a_float_copy():
    images = torch.randint(0, 256, (20, 3, 5, 4), dtype=torch.uint8)
    images[:, 2] = 7
    found = channel_statistics(images)
    pixels = images.double() / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    deviation = pixels.std((0, 2, 3), correction=0).tolist()
    assert found.std == pytest.approx([*deviation[:2], 1.0])
    seen = found(images)
    assert seen.dtype == torch.float32
    assert seen[:, :2].std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_normalize_is_what_it_says():
    seen = Normalize((0.5,), (0.25,))(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    assert seen.flatten().tolist() == [-2.0, 2.0]
