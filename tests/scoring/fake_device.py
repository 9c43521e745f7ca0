"""A GPU that is not there: tensors without values on its device, and what is asked of them.

Torch's fake tensors say where they are and what shape they have; whatever would need a value, which
on a GPU is a wait for it, raises. Torch's autograd engine asks the driver for a device, so that its
graphs are walked here instead.
"""

import contextlib
import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from raygrad.scoring import GradNormScorer, cost
from raygrad.scoring.audit import Audit
from raygrad.scoring.running import own_parameters

VIEWS = frozenset(
    [
        *("alias", "as_strided", "detach", "device", "expand", "permute", "select", "slice"),
        *("split", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view"),
        *("_reshape_alias", "_unsafe_view"),
    ]
)
"""Calls that compute nothing."""


class Calls(TorchDispatchMode):
    """Counts the calls of torch's operators that compute something."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        if name not in VIEWS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self):
        return sum(self.counts.values())


@torch.no_grad()
def walked(outputs, inputs, **_):
    """`torch.autograd.grad` without the engine: the graph's nodes in order, by hand."""
    leaves = {id(tensor): None for tensor in inputs}
    waiting, seen, stack = Counter(), set(), [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for parent, _ in node.next_functions:
            if parent is not None:
                waiting[parent] += 1
                stack.append(parent)
    grads, ready = (
        {outputs.grad_fn: {outputs.output_nr: torch.ones_like(outputs)}},
        [outputs.grad_fn],
    )
    while ready:
        node = ready.pop()
        given = grads.pop(node)
        if hasattr(node, "variable"):
            if id(node.variable) in leaves:
                leaves[id(node.variable)] = given[0]
            continue
        rows = [given.get(at) for at in range(max(given) + 1)]
        # Functions in Python, such as ours, are asked by another name.
        run = node if callable(node) else node.apply
        found = run(*rows) if any(row is not None for row in rows) else None
        found = found if isinstance(found, tuple) else (found,) * len(node.next_functions)
        # Arguments that are no tensors, which ours has last, have no parent.
        for (parent, at), grad in zip(node.next_functions, found, strict=False):
            if parent is None:
                continue
            held = grads.setdefault(parent, {})
            if grad is not None:
                held[at] = grad if held.get(at) is None else held[at] + grad
            else:
                held.setdefault(at, None)
            waiting[parent] -= 1
            if not waiting[parent]:
                ready.append(parent)
    return tuple(leaves[id(tensor)] for tensor in inputs)


@contextlib.contextmanager
def chosen_for_a_gpu(monkeypatch, **changes):
    """Lets methods be chosen on the CPU as on a GPU."""
    with monkeypatch.context() as patch:
        patch.setitem(cost._CLASSES, "cpu", replace(cost.CUDA, **changes))
        yield


def prepared(make, shape, columns, monkeypatch):
    """Returns a scorer that is prepared on the CPU as for a GPU, on two images."""
    torch.manual_seed(0)
    scorer = GradNormScorer(make().eval(), columns)
    with chosen_for_a_gpu(monkeypatch), torch.inference_mode(False):
        scorer._plan(torch.randn(2, *shape), own_parameters(scorer._model))
    return scorer


def _move(model):
    """Puts tensors of the GPU in the place of a network's; `to` cannot, within the mode."""
    there = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in there:
                    empty = torch.empty_like(tensor, device="cuda")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    there[id(tensor)] = nn.Parameter(empty) if is_parameter else empty
                held[name] = there[id(tensor)]


def skip_on_older_torch():
    """Fake tensors of a GPU end the process of an older torch: seen with 2.9, not with 2.14."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14):
        pytest.skip("autograd on fake tensors of a GPU crashes an older torch")


def steady_pass(scorer, shape, batch, later, monkeypatch, *, audit=False):
    """Scores a batch on the GPU that is not there, by the plan of a prepared scorer.

    Args:
        scorer: As of `prepared`.
        shape: The shape of an image.
        batch: Examples.
        later: Takes the checks.
        monkeypatch: Pytest's.
        audit: Whether an audit is due.

    Returns:
        The result, and the calls that were made.
    """
    skip_on_older_torch()
    (plan,) = scorer._plans.values()
    monkeypatch.setattr(torch.autograd, "grad", walked)
    model = copy.deepcopy(scorer._model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _move(model)
        images = torch.empty(batch, *shape, device="cuda")
        labels = torch.zeros(batch, dtype=torch.int64, device="cuda")
        there = GradNormScorer(model, scorer.columns)
        key = there._key(images, own_parameters(model))
        there._plans[key] = replace(plan, runner=replace(plan.runner, model=model))
        there._audits[key] = Audit(1, 10**6 if audit else 0, {batch})
        with Calls() as calls:
            found = there.score(images, labels, later=later)
    return found, calls
