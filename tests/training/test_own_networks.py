"""The user's own network by name: found in the current folder, its contract checked in one line."""

import sys

import pytest
import torch
from torch import nn

from raygrad.errors import ConfigError
from raygrad.training.models import ImageSpec, build_network, check_network

SPEC = ImageSpec(1, 4, 4, 3)
SOURCE = """
from __future__ import annotations
import torch
from torch import nn
from raygrad.training.models import ImageSpec

def of_spec(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.height * spec.width, spec.num_classes))

def of_nothing():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

def optional(num_classes=3, width=16):
    assert num_classes == 3
    return nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))

def annotated(about: ImageSpec = None):
    return of_spec(about)

class Net(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(16, spec.num_classes)
    def forward(self, images):
        return self.layer(images.flatten(1))
    @classmethod
    def small(cls, spec):
        return cls(spec)

def two(width, depth):
    return of_nothing()

def keyword(*, width):
    return of_nothing()

made = of_nothing()
number = 3

def broken(spec):
    return spec["width"]

def returns_text(spec):
    return "net"

def other_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 7))

class Tuple(Net):
    def forward(self, images):
        return super().forward(images), images

class Fails(Net):
    def forward(self, images, mask):
        return images
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a module in it that nothing else makes importable."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    (tmp_path / "wrong.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield tmp_path
    sys.modules.pop("own_nets", None)


@pytest.mark.parametrize(
    "name", ["of_spec", "of_nothing", "optional", "annotated", "Net", "Net.small"]
)
def test_a_callable_of_a_spec_or_of_nothing_is_built(folder, name):
    network = build_network(f"own_nets:{name}", SPEC, seed=0)
    assert isinstance(network, nn.Module)
    assert network(torch.zeros(5, 1, 4, 4)).shape == (5, 3)
    again = build_network(f"own_nets:{name}", SPEC, seed=0).state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(again[key], value), "the seed gives the weights"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_nets:two", "got one that needs width, depth. Write 'def two(spec) -> torch.nn"),
        ("own_nets:keyword", "got one that needs width. Write 'def keyword(spec)"),
        ("own_nets:made", "got a Sequential, which builds none. Write 'def made(spec)"),
        ("own_nets:number", "got a int, which builds none"),
        ("own_nets:broken", "got TypeError: 'ImageSpec' object is not subscriptable. Write"),
        ("own_nets:returns_text", "got a str back. Write 'def returns_text(spec)"),
        ("own_nets:other_classes", "must return logits [2, 3] for 2 images, got [2, 7]"),
        ("own_nets:Tuple", "got a tuple. Wrap it in a module whose forward returns the logits"),
        ("own_nets:Fails", "must take images 1x4x4, got TypeError: Fails.forward() missing"),
        ("own_nets:none", "It has Fails, ImageSpec, Net, Tuple, annotated"),
        ("no_such:net", "(No module named 'no_such'). Run where the module can be imported"),
        ("wrong:f", "must name an importable module:callable, got 'wrong:f' (invalid syntax"),
    ],
)
def test_what_breaks_the_contract_is_one_line_that_shows_the_right_one(folder, name, text):
    with pytest.raises(ConfigError) as refused:
        build_network(name, SPEC, seed=0)
    assert text in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_contract_that_the_signature_breaks_is_seen_before_anything_is_built(folder):
    with pytest.raises(ConfigError, match="needs width, depth"):
        check_network("own_nets:two")
    check_network("own_nets:broken")
