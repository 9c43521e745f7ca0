"""A tie that rounding decides is told from a wrong number: not refused, not sent to a loop."""

import logging

import pytest
import torch
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.audit import Audit
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.scoring.ties import nudged, precision_of
from tests.scoring.comparing import COLUMNS, batch, relative_error


class AtAKink(nn.Module):
    """A unit 1e-4 above 0 that float32 rounds to 0 where it is summed in the other order."""

    def __init__(self, otherwise):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.up, self.down = (nn.Parameter(torch.tensor([1e4])) for _ in range(2))
        self.otherwise = otherwise

    def forward(self, x):
        h = torch.tanh(self.first(x))
        small = 1e-4 + (h[:, :1] - h[:, :1].detach())
        if self.otherwise(x):
            unit = small.sub(self.up).sub(self.down.neg())
        else:
            unit = small.sub(self.up.sub(self.down))
        return self.head(h * (1 + torch.relu(unit)))


def scorer_of(otherwise):
    model = AtAKink(otherwise).eval()
    return model, GradNormScorer(model, COLUMNS)


def plan_of(scorer):
    return next(iter(scorer._plans.values()))


def test_the_two_orders_are_far_apart_and_the_same_in_float64():
    """The network of these tests has a kink that decides by per cents, in float32 alone."""
    x, y = batch(1, 8)
    for dtype, apart in ((None, True), (torch.float64, False)):
        ways = [
            loop_grad_norms(AtAKink(lambda _, w=w: w).eval(), x, y, COLUMNS, dtype=dtype)
            for w in (True, False)
        ]
        assert (relative_error(ways[0], ways[1]) > 0.02) == apart


def test_a_tie_in_the_first_audit_keeps_the_formulas(caplog):
    _, scorer = scorer_of(lambda x: len(x) > 2)
    x, y = batch(5, 8)
    with caplog.at_level(logging.WARNING, "raygrad"):
        scorer.score(x, y)
    assert not plan_of(scorer).alone
    assert "rounding decides" in caplog.text


def test_a_tie_in_a_later_audit_is_not_refused(caplog):
    _, scorer = scorer_of(lambda x: len(x) > 2)
    x, y = batch(5, 8)
    found = scorer.score(x, y).norms
    for key in scorer._audits:
        scorer._audits[key] = Audit(count=1, images=10**6)
    caplog.clear()
    again = scorer.score(x, y).norms
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert "rounding decides" in caplog.text
    assert not plan_of(scorer).alone


def test_a_tie_in_preparing_keeps_the_formulas():
    """Rows that differ, as the probe's, are summed in another order than a row beside its copy."""
    _, scorer = scorer_of(lambda x: len(x) == 2 and not torch.equal(x[0], x[1]))
    x, y = batch(5, 8)
    assert scorer.score(x, y).norms
    assert "first.weight" not in plan_of(scorer).fallback
    assert "head.weight" not in plan_of(scorer).fallback


class Scaled(torch.autograd.Function):
    """An identity whose gradient goes by how many examples there are."""

    @staticmethod
    def forward(ctx, x):
        ctx.rows = len(x)
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * (1.01 if ctx.rows > 2 else 1.0)


def test_a_gradient_that_depends_on_the_batch_is_no_tie():
    class Depends(AtAKink):
        def forward(self, x):
            return (
                super().forward(Scaled.apply(x + 0 * self.up)) + Scaled.apply(self.first(x))[:, :4]
            )

    model = Depends(lambda x: False).eval()
    scorer, (x, y) = GradNormScorer(model, COLUMNS), batch(5, 8)
    exact = loop_grad_norms(model, x, y, COLUMNS)
    assert relative_error(scorer.score(x, y).norms, exact) < 1e-4
    assert plan_of(scorer).alone


def test_a_wrong_number_in_float32_alone_is_no_tie():
    """Both ways agree in float64, and no nudge moves the norms as far as they are apart."""

    class Narrow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.wrong = len(x) > 2 and x.dtype == torch.float32
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * (1.01 if ctx.wrong else 1.0)

    class Wrong(AtAKink):
        def forward(self, x):
            return self.head(Narrow.apply(torch.tanh(self.first(x))))

    model = Wrong(None).eval()
    scorer, (x, y) = GradNormScorer(model, COLUMNS), batch(5, 8)
    scorer.score(x, y)
    assert plan_of(scorer).alone
    for key in scorer._audits:
        scorer._audits[key] = Audit(count=1, images=10**6)


def test_a_later_batch_with_another_gradient_is_still_refused():
    state = {"on": False}

    class Later(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.wrong = state["on"] and len(x) > 2
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * (1.01 if ctx.wrong else 1.0)

    class Wrong(AtAKink):
        def forward(self, x):
            return self.head(Later.apply(torch.tanh(self.first(x))))

    scorer, (x, y) = GradNormScorer(Wrong(None).eval(), COLUMNS), batch(5, 8)
    scorer.score(x, y)
    state["on"] = True
    for key in scorer._audits:
        scorer._audits[key] = Audit(count=1, images=10**6)
    with pytest.raises(ConfigError, match="depend on the batch"):
        scorer.score(x, y)


def test_nudges_are_of_the_size_of_the_rounding_and_the_same_again():
    x, eps = torch.randn(100, dtype=torch.float64), precision_of(torch.zeros(1))
    assert (eps, precision_of(torch.zeros(1, dtype=torch.bfloat16))) == (2**-23, 2**-7)
    shares = [(nudged({"a": x}, x, eps, draw)[0]["a"] - x) / x for draw in (0, 2)]
    largest = [share.abs().max() for share in shares]
    assert 1.5 * eps < largest[0] <= 2 * eps < largest[1] <= 4 * eps
    tensors, images = nudged({"a": x, "b": x, "n": torch.arange(3)}, x, eps, 3)
    assert not torch.equal(tensors["a"], tensors["b"])
    assert torch.equal(tensors["n"], torch.arange(3))
    assert torch.equal(images, nudged({"a": x, "b": x}, x, eps, 3)[1])
