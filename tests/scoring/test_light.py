"""Scoring brings no module into its process that it does not use."""

import subprocess
import sys

import torch

from raygrad.scoring.pulling import pull_back

SCORED = """
import sys
import torch
from raygrad.scoring import per_example_grad_norms
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(18, 3)
).eval()
labels = torch.tensor([0, 1])
per_example_grad_norms(network, torch.randn(2, 3, 5, 5), labels, columns=["grad_l2_all"])
print(*sorted({"sympy", "torch._dynamo", "torchvision", "scipy", "pandas"} & set(sys.modules)))
"""


def test_scoring_imports_no_compiler_and_no_algebra():
    """They take seconds of CPU in every actor."""
    ran = subprocess.run([sys.executable, "-c", SCORED], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_pulling_back_is_autograd_with_a_direction_bit_for_bit():
    torch.manual_seed(0)
    leaves = [torch.randn(4, 5, requires_grad=True), torch.randn(5, requires_grad=True)]
    unused = torch.zeros(1, requires_grad=True)
    outputs = torch.tanh(torch.randn(8, 4) @ leaves[0] + leaves[1])
    direction = torch.randn(8, 5) * 10.0 ** torch.arange(-20, 20, 8)
    direction[0, 0], direction[1, 1] = float("inf"), -0.0
    expected = torch.autograd.grad(outputs, leaves, direction, retain_graph=True)
    *found, none = pull_back(outputs, [*leaves, unused], direction)
    assert none is None
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
