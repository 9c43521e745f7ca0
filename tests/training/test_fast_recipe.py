"""The fast recipe of CIFAR-10: its network, its first layer, its optimiser and its images."""

import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.config import TrainConfig
from raygrad.data.arrays import ImageArrays
from raygrad.data.index_rows import REJECT_SCHEMA
from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer
from raygrad.training import ranks
from raygrad.training.augment import alternately_mirrored, augment, scaled_down
from raygrad.training.examples import Examples
from raygrad.training.loop import TrainingLoop
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.muon import Muon, make_muon, orthogonalized
from raygrad.training.networks import Whitening
from raygrad.training.optimizers import learning_rate_at
from raygrad.training.preprocess import Normalize, channel_statistics
from raygrad.training.recipes import recipe
from raygrad.training.retraining import retrain
from raygrad.training.starting import initial_network
from raygrad.training.study_data import StudyData
from raygrad.training.trial import Trial
from raygrad.training.whitening import fit_whitening, patch_covariance, whitening_filters

SPEC = ImageSpec(3, 12, 12, 4)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setattr("raygrad.training.networks.AIRBENCH_CHANNELS", (24, 32, 32))


FAST = recipe("cifar10", "airbench94")


def examples(n: int, seed: int) -> Examples:
    """Four classes, bright above or below in a colour of two: what no mirroring changes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    coarse = torch.randint(0, 90, (n, 3, 4, 4), generator=generator).float()
    images = F.interpolate(coarse, size=(12, 12), mode="bilinear")
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label % 2, 6 * (label // 2) :][:6] += 120
    return Examples(images.to(torch.uint8), labels)


def make_loop(n=60, seed=0, **changes) -> TrainingLoop:
    fields = {"epochs": 4, "batch_size": 20, "small_epochs": 2, "small_size": 10, **changes}
    config = replace(FAST, **fields, bound_epochs=(), probe_size=0)
    train = examples(n, 1)
    network = initial_network("airbench94", config, SPEC, seed)
    normalize = channel_statistics(train.images)
    return TrainingLoop(network, config, normalize, train, examples(40, 2), order_seed=5)


def weights(loop: TrainingLoop) -> torch.Tensor:
    return torch.cat([t.double().flatten() for t in loop._network.state_dict().values()])


def test_running_statistics_are_kept_as_published():
    modules = build_network("airbench94", SPEC, 0).modules()
    norms = [one for one in modules if isinstance(one, nn.BatchNorm2d)]
    assert {(n.momentum, n.eps, n.weight.requires_grad) for n in norms} == {(0.4, 1e-12, False)}


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (9, 9)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_orthogonalized_maps_each_singular_value_and_keeps_the_singular_vectors(shape, steps):
    """Against the singular value decomposition and the quintic applied to the values alone."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    found = orthogonalized(matrix, steps)
    torch.testing.assert_close(found, left @ values.diag() @ right, rtol=1e-5, atol=1e-6)


def test_orthogonalized_is_near_the_closest_orthogonal_matrix():
    """Singular values of a well-posed matrix come near 1, and the direction is that of U V^T."""
    matrix = torch.randn(16, 200, generator=torch.Generator().manual_seed(2))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert F.cosine_similarity(found.flatten(), (left @ right).flatten(), 0) > 0.98
    assert torch.equal(orthogonalized(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_filters_move_by_muon_and_the_rest_as_torchs_own_sgd_does():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    config = TrainConfig(
        optimizer="muon", learning_rate=0.1, momentum=0.6, weight_decay=1e-3,
        rest_learning_rate=0.5, last_layer_learning_rate=0.02, rest_momentum=0.85,
    )  # fmt: skip
    twin = copy.deepcopy(network)
    filters, (head, head_bias) = twin[0].weight, twin[3].parameters()
    rest = [twin[0].bias, *twin[1].parameters(), head_bias]
    sgd = torch.optim.SGD(
        [{"params": rest, "lr": 0.5, "weight_decay": 1e-3 / 0.5},
         {"params": [head], "lr": 0.02, "weight_decay": 1e-3 / 0.02}],
        lr=1.0, momentum=0.85, nesterov=True,
    )  # fmt: skip
    muon, buffer = make_muon(network, config), torch.zeros_like(filters)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        images = torch.randn(8, 3, 4, 4, generator=generator)
        for each, optimizer in ((network, muon), (twin, sgd)):
            optimizer.zero_grad()
            each.zero_grad()
            F.cross_entropy(each(images), torch.arange(8) % 2).backward()
        muon.step()
        sgd.step()
        with torch.no_grad():
            buffer = 0.6 * buffer + filters.grad
            moved = (filters.grad + 0.6 * buffer).flatten(1)
            scaled = filters * (2.0 / filters.norm())
            filters.copy_(scaled - 0.1 * orthogonalized(moved).view(filters.shape))
    for found, wanted in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_muon_leaves_what_does_not_learn_and_names_each_groups_share_of_the_rate():
    network = build_network("airbench94", SPEC, 0)
    muon = make_muon(network, FAST)
    learned = {id(p) for p in network.parameters() if p.requires_grad}
    grouped = [id(p) for group in muon.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(learned)
    filters, rest, head = muon.param_groups
    assert [p.dim() for p in filters["params"]] == [4] * 6
    assert [p.dim() for p in rest["params"]] == [1] * 7
    assert [tuple(p.shape) for p in head["params"]] == [(4, 32)]
    for group in muon.param_groups:
        assert group["scale"] * FAST.learning_rate == pytest.approx(group["lr"])


def test_muon_without_filters_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer muon must find filters .* got none in .*mlp"):
        make_muon(build_network("mlp", SPEC, 0), TrainConfig(network="mlp", optimizer="muon"))


def test_the_rates_of_all_groups_fall_along_a_line_to_nothing():
    config = TrainConfig(schedule="linear", epochs=4, learning_rate=0.2, lr_decay_epochs=())
    assert [learning_rate_at(config, step, 5) for step in range(20)] == pytest.approx(
        [0.2 * (1 - step / 20) for step in range(20)]
    )
    loop = make_loop(epochs=1)
    loop.run()
    shares = [group["lr"] / group["scale"] for group in loop._optimizer.param_groups]
    assert isinstance(loop._optimizer, Muon)
    assert shares == pytest.approx([FAST.learning_rate / 3] * 3)


def test_whitened_patches_have_unit_covariance():
    """Each half of the filters makes patches uncorrelated and of size 1.

    That is but for directions whose variance is as small as what is added to it.
    """
    train = examples(80, 3)
    normalize = channel_statistics(train.images)
    layer = Whitening(3, 2)
    fit_whitening(nn.Sequential(layer), train, normalize)
    with torch.no_grad():
        seen = F.conv2d(normalize(train.images), layer.weight).permute(0, 2, 3, 1).flatten(0, 2)
    covariance = (seen[:, :12].T @ seen[:, :12] / len(seen)).numpy()
    assert torch.equal(layer.weight[:12], -layer.weight[12:])
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    assert np.diag(covariance)[-6:] == pytest.approx(np.ones(6), abs=0.05)


def test_whitening_is_of_the_images_alone_and_of_every_part_of_the_split(monkeypatch):
    train, normalize = examples(90, 3), Normalize((0.5,) * 3, (0.25,) * 3)
    one, other = Whitening(3, 2), Whitening(3, 2)
    fit_whitening(one, train, normalize)
    torch.manual_seed(99)
    fit_whitening(other, train, normalize)
    assert torch.equal(one.weight, other.weight)
    subset = Whitening(3, 2)
    fit_whitening(subset, Examples(train.images[:20], train.labels[:20]), normalize)
    assert not torch.equal(one.weight, subset.weight)
    monkeypatch.setattr("raygrad.training.whitening.SAMPLE", 30)
    third = Examples(train.images[::3], train.labels[::3])
    sampled, whole = (patch_covariance(e, normalize, (2, 2)) for e in (train, third))
    assert torch.equal(sampled, whole)


def test_the_sign_of_an_eigenvector_does_not_change_the_filters():
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    filters = whitening_filters(covariance, (1, 1, 2))
    largest = filters[:2].flatten(1).abs().argmax(1)
    assert (filters[:2].flatten(1)[torch.arange(2), largest] > 0).all()


def test_a_whitening_layer_whose_weights_were_loaded_stays_as_it_was():
    loop = make_loop()
    fresh = build_network("airbench94", SPEC, 1)
    assert not fresh[0].is_fitted
    assert loop._network[0].is_fitted
    fresh.load_state_dict(loop._network.state_dict())
    before = fresh[0].weight.clone()
    fit_whitening(fresh, examples(50, 8), loop._normalize)
    assert torch.equal(fresh[0].weight, before)


def test_all_ranks_have_the_first_ones_whitening(monkeypatch):
    first = torch.full((24, 3, 2, 2), 0.5)
    monkeypatch.setattr(ranks, "gathered", lambda mine: [first, mine])
    layer = Whitening(3, 2)
    fit_whitening(layer, examples(20, 3), Normalize((0.5,) * 3, (0.25,) * 3))
    assert torch.equal(layer.weight, first)


@pytest.mark.parametrize("trained", [False, True])
def test_norms_of_the_networks_gradients_are_those_of_autograd_one_example_at_a_time(trained):
    """Frozen scales and filters included; in float64, and after some steps of training."""
    loop = make_loop(epochs=1)
    if trained:
        loop.run()
    network = loop._network.double().eval()
    images = loop._normalize(examples(5, 9).images).double()
    labels = torch.tensor([0, 1, 2, 3, 0])
    columns = ("grad_l2_all", "grad_l1_weights", "grad_l2_last_layer_weights", "grad_linf_biases")
    found = GradNormScorer(network, columns).score(images, labels).norms
    network = copy.deepcopy(network).requires_grad_(True)
    names = [name for name, _ in network.named_parameters()]
    for i in range(5):
        loss = F.cross_entropy(network(images[i : i + 1]), labels[i : i + 1])
        grads = dict(zip(names, torch.autograd.grad(loss, list(network.parameters())), strict=True))
        flat = torch.cat([g.flatten() for g in grads.values()])
        only = torch.cat([g.flatten() for n, g in grads.items() if n.endswith("weight")])
        bias = torch.cat([g.flatten() for n, g in grads.items() if n.endswith("bias")])
        wanted = (flat.norm(), only.abs().sum(), grads[names[-1]].norm(), bias.abs().max())
        for column, value in zip(columns, wanted, strict=True):
            assert float(found[column][i]) == pytest.approx(float(value), rel=1e-6)


def test_every_image_is_mirrored_in_every_other_pass_over_the_data():
    at = np.random.default_rng(0).permutation(1000)
    one, two, three = (alternately_mirrored(at, 1000, epoch, 7) for epoch in range(3))
    assert np.array_equal(one, ~two)
    assert np.array_equal(one, three)
    assert 440 < one.sum() < 560
    whole = alternately_mirrored(np.arange(1000), 1000, 0, 7)
    assert np.array_equal(one, whole[at])
    assert not np.array_equal(whole, alternately_mirrored(np.arange(1000), 1000, 0, 8))


def test_a_moved_image_is_filled_with_its_own_reflection():
    image = torch.arange(25, dtype=torch.uint8).reshape(1, 1, 5, 5)
    config = TrainConfig(augment="shift", augment_fill="reflect", augment_pixels=2)
    whole = np.pad(image[0, 0].numpy(), 2, mode="reflect")
    ways = {whole[y : y + 5, x : x + 5].tobytes() for y in range(5) for x in range(5)}
    rows = np.arange(200)
    out = augment(image.repeat(200, 1, 1, 1), config, seed=1, step=0, rows=rows, of=200)
    assert {moved.numpy().tobytes() for moved in out} == ways


def test_smaller_images_are_smoothed_means_and_small_ones_stay():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    flat = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(scaled_down(flat, 4), torch.full((1, 3, 4, 4), 77, dtype=torch.uint8))
    # A checkerboard that plain sampling would make all black or all white.
    board = (((torch.arange(8)[:, None] + torch.arange(8)) % 2) * 200).to(torch.uint8)
    grey = scaled_down(board.expand(1, 3, 8, 8).contiguous(), 4).float()
    assert grey.min() > 90
    assert grey.max() < 110
    assert scaled_down(images, 8) is images


def test_only_the_first_epochs_see_small_images(monkeypatch):
    loop, sides = make_loop(epochs=3, small_epochs=2, small_size=10), []
    forward = loop._forward
    monkeypatch.setattr(loop, "_forward", lambda n, x: sides.append(x.shape[-1]) or forward(n, x))
    loop.run()
    assert sides == [10] * 6 + [12] * 3


def test_a_network_that_takes_one_size_is_refused_with_small_epochs():
    config = TrainConfig(network="mlp", small_epochs=1, small_size=8)
    with pytest.raises(ConfigError, match=r"with small_epochs, network 'mlp' must take .*8 pixels"):
        initial_network("mlp", config, SPEC, 0)


def test_the_recipe_learns():
    loop = make_loop(n=120, epochs=6, batch_size=12)
    assert loop.run().best_val_accuracy > 0.8


def test_a_training_that_goes_on_within_any_epoch_ends_in_the_same_weights():
    """Also from another seed's fresh weights: the state holds momenta and the first layer."""
    undisturbed, saved = make_loop(epochs=3), []
    keep = lambda loop: saved.append(loop.state_dict())  # noqa: E731
    undisturbed.run(keep, keep)
    assert len(saved) == 9
    for state in (saved[1], saved[5]):
        resumed = make_loop(seed=9, epochs=3)
        resumed.load_state_dict(state)
        resumed.run()
        assert torch.equal(weights(resumed), weights(undisturbed))


def test_a_retraining_on_a_subset_owes_nothing_to_the_images_left_out():
    """Its first layer neither: with other images left out, the row and the seeds are the same."""
    rows = []
    none = pa.Table.from_pylist([], REJECT_SCHEMA)
    for seed in (1, 2):
        kept, left_out = examples(30, 5), examples(40, seed)
        train = Examples(
            torch.cat([kept.images, left_out.images]), torch.cat([kept.labels, left_out.labels])
        )
        splits = {
            split: ImageArrays(e.images.numpy(), e.labels.numpy(), [*map(str, range(len(e)))], none)
            for split, e in (("train", train), ("val", examples(20, 6)), ("test", examples(20, 7)))
        }
        data = StudyData(**splits, num_classes=4, normalize=Normalize((0.5,) * 3, (0.25,) * 3))
        trial = Trial("airbench94", None, None, "random", 0.4, 30, 3, "equal_steps", "s", "c")
        config = replace(FAST, epochs=2, batch_size=20, small_epochs=1, small_size=10)
        row = retrain(trial, np.arange(30), config, data)
        rows.append({key: row[key] for key in ("test_loss", "val_loss", "steps", "epochs")})
    assert rows[0] == rows[1]
    assert rows[0]["steps"] == 8


def test_images_must_have_nine_pixels():
    assert build_network("airbench94", ImageSpec(1, 9, 9, 3), 0)
    with pytest.raises(ConfigError, match=r"airbench94.*8x8.*fewer than 9 pixels"):
        build_network("airbench94", ImageSpec(1, 8, 8, 3), 0)
