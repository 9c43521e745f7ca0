import dataclasses

import pytest

from raygrad.errors import ConfigError
from raygrad.training.models import check_network
from raygrad.training.recipes import RECIPES, recipe

PAIRS = [(data_set, network) for data_set, found in RECIPES.items() for network in found]


@pytest.mark.parametrize(("data_set", "network"), PAIRS)
def test_every_recipe_names_its_network_and_measures_what_the_paper_shows(data_set, network):
    found = recipe(data_set, network)
    assert found.network == network
    check_network(network)
    assert found.probe_size == 512
    assert all(epoch <= found.epochs for epoch in found.bound_epochs)
    # Patience must outlast the wait for the first decay, or no plateau would ever reach it.
    if data_set != "digits" and found.schedule == "step":
        assert found.patience >= found.lr_decay_epochs[0] / 3


def test_the_papers_schedules():
    assert (recipe("mnist", "cnn").epochs, recipe("mnist", "cnn").lr_decay_epochs) == (50, (30,))
    for data_set in ("cifar10", "cifar100"):
        for network in ("cnn5", "vgg16_32", "linear"):
            assert len(recipe(data_set, network).lr_decay_epochs) == 2


def test_digits_are_never_mirrored():
    for data_set in ("digits", "mnist"):
        assert all("flip" not in found.augment for found in RECIPES[data_set].values())


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe("mnist", "cnn").epochs = 1


def test_what_there_is_no_recipe_for_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"got 'mnits'. Did you mean 'mnist'"):
        recipe("mnits", "cnn")
    with pytest.raises(ConfigError, match=r"network of a recipe for cifar10 .*got 'cnn'"):
        recipe("cifar10", "cnn")
