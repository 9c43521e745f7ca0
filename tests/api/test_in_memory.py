"""`raygrad.score`: a model, a data set, one table in its order."""

import copy
import doctest
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import raygrad
from raygrad.api import in_memory
from raygrad.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    return TensorDataset(torch.randn(37, 1, 6, 6), torch.randint(0, 3, (37,)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def one_by_one(model, data):
    """The l2 norm over all weights, by autograd on each example alone in float64."""
    model = copy.deepcopy(model).double().eval()
    weights = [p for n, p in model.named_parameters() if "bias" not in n]
    norms = []
    for image, label in data:
        logits = model(image[None].double())
        grads = torch.autograd.grad(nn.functional.cross_entropy(logits, label[None]), weights)
        norms.append(sum(float((g**2).sum()) for g in grads) ** 0.5)
    return np.array(norms)


def test_norms_equal_the_loop_over_single_examples_in_the_order_of_the_data(model, data):
    table = raygrad.score(model, data, batch_size=8)
    assert table["position"].to_pylist() == list(range(37))
    assert table["label"].to_pylist() == data.tensors[1].tolist()
    np.testing.assert_allclose(table["grad_l2_weights"], one_by_one(model, data), rtol=2e-5)


def test_a_loader_a_list_and_a_stream_give_the_same_table(model, data):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(data)

    table = raygrad.score(model, data)
    pairs = [(image, int(label)) for image, label in data]
    for other in (DataLoader(data, 10), pairs, Stream(), DataLoader(Stream(), 10), iter(pairs)):
        found = raygrad.score(model, other)
        assert found["label"] == table["label"]
        np.testing.assert_allclose(found["grad_l2_weights"], table["grad_l2_weights"], rtol=1e-5)


def test_the_model_keeps_its_modes_and_its_buffers(model, data):
    model.train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    raygrad.score(model, data)
    assert [module.training for module in model] == [True, True, False, True, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shuffle": True}, "keep the data set's order, got a RandomSampler"),
        ({"batch_size": 10, "drop_last": True}, "every example"),
        ({"batch_sampler": [[3, 1], [2, 0]]}, "keep the data set's order, got a list"),
    ],
)
def test_a_loader_that_changes_order_or_loses_examples_is_refused(options, text, model, data):
    with pytest.raises(ConfigError, match=text):
        raygrad.score(model, DataLoader(data, **options))


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([(np.zeros((1, 6, 6)), 0)], "float tensors as the model takes them, got ndarray"),
        ([(torch.zeros(1, 6, 6, dtype=torch.uint8), 0)], "got torch.uint8"),
        ([(torch.zeros(1, 6, 6), "cat")], "a class, an int, got 'cat'"),
        ([(torch.zeros(1, 6, 6), 0.5)], "a class, an int, got 0.5"),
        ([(torch.zeros(1, 6, 6), 0, 1)], "pairs of image and label, got 3 things"),
        ([(torch.zeros(1, 6, 6), 0), (torch.zeros(1, 5, 6), 0)], "must have one size"),
        ([(torch.zeros(1, 6, 6), 7)], r"classes 0\.\.2, got 7"),
        ([], "must hold an example"),
        (7, "got int"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(pairs, text, model):
    with pytest.raises((ConfigError, DataError), match=text):
        raygrad.score(model, pairs)


def test_a_data_set_that_varies_its_images_is_told(model, caplog):
    class Varied(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, at):
            return torch.randn(1, 6, 6), 0

    with caplog.at_level(logging.WARNING, "raygrad"):
        raygrad.score(model, Subset(Varied(), [0, 1]))
    assert "another image each time" in caplog.text


def test_scores_that_are_no_numbers_are_told_and_refused_where_all_are(model, data, caplog):
    pairs = [(image, int(label)) for image, label in data]
    pairs[5] = (torch.full((1, 6, 6), torch.nan), 1)
    with caplog.at_level(logging.WARNING, "raygrad"):
        raygrad.score(model, pairs, ["loss"])
    assert "1 of 37 scores of loss are no numbers" in caplog.text
    with pytest.raises(DataError, match="got none of 1 in loss"):
        raygrad.score(model, [pairs[5]], ["loss"])


def test_the_documented_example_runs():
    found = doctest.testmod(in_memory)
    assert found.attempted >= 6
    assert found.failed == 0


def test_importing_raygrad_brings_neither_torch_nor_ray():
    code = "import sys, raygrad; assert not {'torch', 'ray', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
