"""Weights that were trained elsewhere: every usual form is read, and a wrong one is named."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raygrad.errors import ConfigError
from raygrad.training.checkpoints import Checkpoint, save_checkpoint
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.outside import NetworkSource, read_weights, weights_digest
from raygrad.training.preprocess import Normalize

SPEC = ImageSpec(1, 8, 8, 3)


def trained():
    """A network whose weights no seed of the tests gives."""
    return build_network("mlp", SPEC, seed=99)


def write(folder, name, network):
    """Writes a network's weights in the form that the name says."""
    weights, path = network.state_dict(), folder / name
    forms = {
        "plain.pt": weights,
        "held.pt": {"state_dict": weights, "epoch": 3},
        "wrapped.pt": {"model": {f"module.{k}": v for k, v in weights.items()}},
        "compiled.pt": {f"module._orig_mod.{k}": v for k, v in weights.items()},
    }
    if name == "own.pt":
        save_checkpoint(str(path), Checkpoint("mlp", SPEC, Normalize((0.5,), (0.5,)), weights))
    elif name == "net.safetensors":
        save_file(weights, path)
    else:
        torch.save(forms[name], path)
    return str(path)


@pytest.mark.parametrize(
    "name", ["plain.pt", "held.pt", "wrapped.pt", "compiled.pt", "own.pt", "net.safetensors"]
)
def test_every_form_of_file_gives_the_same_network(tmp_path, name):
    network = trained()
    built = NetworkSource("mlp", SPEC, write(tmp_path, name, network)).build()
    assert weights_digest(built) == weights_digest(network)
    assert not built.training


def test_without_a_file_weights_are_fresh_and_the_seeds(tmp_path):
    first, again, other = (NetworkSource("mlp", SPEC, None, seed).build() for seed in (0, 0, 1))
    assert weights_digest(first) == weights_digest(again) != weights_digest(other)


def test_what_does_not_fit_is_named_in_one_error(tmp_path):
    weights = trained().state_dict()
    weights["5.extra"] = weights.pop("5.weight")
    weights["5.bias"] = torch.zeros(1000)
    torch.save(weights, tmp_path / "net.pt")
    with pytest.raises(ConfigError) as caught:
        NetworkSource("mlp", SPEC, str(tmp_path / "net.pt")).build()
    text = str(caught.value)
    assert "1 missing (5.weight)" in text
    assert "1 unexpected (5.extra)" in text
    assert "1 misshapen (5.bias [1000] instead of [3])" in text
    assert "--num-classes" in text


def test_counters_of_batch_normalisation_may_be_missing(tmp_path):
    network = build_network("resnet18", ImageSpec(3, 32, 32, 3), seed=1)
    weights = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(weights, tmp_path / "old.pt")
    source = NetworkSource("resnet18", ImageSpec(3, 32, 32, 3), str(tmp_path / "old.pt"))
    assert weights_digest(source.build()) == weights_digest(network)


def test_nothing_in_a_file_is_executed(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ConfigError, match="not the model itself"):
        read_weights(str(path))

    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ConfigError, match="tensors and plain values"):
        read_weights(str(path))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_a_cut_file_is_a_clear_error(tmp_path, name):
    whole = write(tmp_path, "plain.pt" if name.endswith("pt") else "net.safetensors", trained())
    with open(whole, "rb") as stream:
        (tmp_path / name).write_bytes(stream.read()[:1000])
    with pytest.raises(ConfigError, match=name):
        read_weights(str(tmp_path / name))


def test_a_file_that_is_not_there_or_holds_something_else_is_said(tmp_path):
    with pytest.raises(ConfigError, match="checkpoint must exist"):
        read_weights(str(tmp_path / "none.pt"))
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "log.pt")
    with pytest.raises(ConfigError, match="the keys epoch, loss"):
        read_weights(str(tmp_path / "log.pt"))
