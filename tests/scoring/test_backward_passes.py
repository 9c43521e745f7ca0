"""Backward passes of a model's own: exact, or refused by name; nothing is left in the model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer, batch_bound, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.scoring.running import own_parameters
from tests.scoring.comparing import batch, relative_error

COLUMNS = ("grad_l2_all", "grad_l1_weights", "grad_linf_biases")


def _truth(model, x, y):
    """The l2 norms over all parameters by ``backward`` on the model itself, image by image."""
    rows = []
    for image, label in zip(x.split(1), y.split(1), strict=True):
        model.zero_grad()
        F.cross_entropy(model(image), label).backward()
        found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        rows.append(torch.cat(found).double().norm())
    model.zero_grad()
    return {"grad_l2_all": torch.stack(rows)}


class _Hooked(nn.Module):
    """A hook that scales gradients by how many images there are."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()

    def forward(self, x):
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        if h.requires_grad:
            h.register_hook(lambda g: g * len(g))
        return self.head(h)


class _Stepped(nn.Module):
    """A learned step size, whose gradient is scaled by the number of activations (LSQ)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.step = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        h = torch.relu(self.conv(x))
        scaled = self.step * (15 * h.numel()) ** -0.5
        step = (self.step - scaled).detach() + scaled
        h = (h / step).clamp(0, 15)
        return self.head(((h.round() - h).detach() + h).mul(step).mean((2, 3)))


class _Frequent(nn.Module):
    """Rows of a table, whose gradients are divided by how often each is picked in the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(6, 8, scale_grad_by_freq=True), nn.Linear(40, 4)

    def forward(self, x):
        return self.head(self.table(x).flatten(1))


@pytest.mark.parametrize("make", [_Hooked, _Stepped, _Frequent])
def test_gradients_that_go_by_the_number_of_images_are_those_of_one(make):
    """By the scorer, of a batch of any size, and by the oracle."""
    model, (x, y) = make().eval(), batch(5)
    x = torch.randint(0, 6, (5, 5)) if make is _Frequent else x
    exact = _truth(model, x, y)
    assert relative_error(per_example_grad_norms(model, x, y, tuple(exact)), exact) < 1e-5
    oracle = loop_grad_norms(model, x, y, tuple(exact), dtype=None)
    assert relative_error(oracle, exact) < 1e-5
    one = per_example_grad_norms(model, x[:1], y[:1], tuple(exact))
    assert relative_error(one, {n: column[:1] for n, column in exact.items()}) < 1e-5
    if make is _Stepped:
        model.requires_grad_(False)
        model.step.requires_grad_()
        columns = ("grad_l2_trainable",)
        found = per_example_grad_norms(model, x, y, columns)
        exact = loop_grad_norms(model, x, y, columns, dtype=None)
        assert relative_error(found, exact) < 1e-4


def test_such_gradients_beside_a_normalisation_are_refused():
    """Torch computes it right for several images alone, and the other for one alone."""
    with pytest.raises(ConfigError, match="however many stand beside it"):
        GradNormScorer(_Hooked(norm=True).eval()).score(*batch(5))


class _Reversible(torch.autograd.Function):
    """Runs a part of the model without its graph, and again in the backward pass."""

    @staticmethod
    def forward(ctx, x, part):
        a, b = x.chunk(2, 1)
        ctx.part = part
        ctx.save_for_backward(b)
        return torch.cat([a + part(b), b], 1)

    @staticmethod
    def backward(ctx, g):
        ga, gb = g.chunk(2, 1)
        with torch.enable_grad():
            b = ctx.saved_tensors[0].detach().requires_grad_()
            ctx.part(b).backward(ga)
        return torch.cat([ga, gb + b.grad], 1), None


class _Checkpointed(torch.autograd.Function):
    """Asks for gradients of all parameters that it was given, as guided-diffusion's does."""

    @staticmethod
    def forward(ctx, part, x, *parameters):
        ctx.part, ctx.x, ctx.parameters = part, x, parameters
        with torch.no_grad():
            return part(x)

    @staticmethod
    def backward(ctx, g):
        x = ctx.x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.part(x.view_as(x))
        return None, *torch.autograd.grad(y, (x, *ctx.parameters), g, allow_unused=True)


class _Parted(nn.Module):
    """A network with a part that one of these functions runs."""

    def __init__(self, reversible, split=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        width = 4 if reversible else 8
        self.part = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.reversible = reversible

    def forward(self, x):
        h = self.first(x)
        if self.reversible:
            return self.head(torch.relu(_Reversible.apply(h, self.part)))
        return self.head(_Checkpointed.apply(self.part, h, *self.part.parameters()))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("reversible", [False, True])
def test_a_part_that_runs_again_in_the_backward_pass_has_its_norms(reversible, frozen):
    """Frozen parameters count as all others do; the model has no gradient afterwards."""
    model, (x, y) = _Parted(reversible).eval(), batch(5, 8)
    exact = _truth(model, x, y) | loop_grad_norms(model, x, y, COLUMNS)
    assert relative_error(_truth(model, x, y), {n: exact[n] for n in ("grad_l2_all",)}) < 1e-6
    model.part.requires_grad_(not frozen)
    if frozen and not reversible:
        # Its backward pass asks for gradients of what requires none.
        model.part.requires_grad_(True)
    scorer = GradNormScorer(model, COLUMNS)
    for _ in range(2):
        assert relative_error(scorer.score(x, y).norms, exact) < 1e-5
    assert float(exact["grad_l2_all"].min()) > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    model.requires_grad_(False)
    model.part[0].weight.requires_grad_()
    own = loop_grad_norms(model, x, y, ("grad_l2_trainable",))
    assert float(own["grad_l2_trainable"].min()) > 0
    assert relative_error(per_example_grad_norms(model, x, y, tuple(own)), own) < 1e-5
    assert own_parameters(model)["part.0.weight"].grad is None


def test_a_backward_pass_within_the_forward_pass_is_no_part_of_the_gradient():
    """It steers the input by a gradient of its own, which stays at the parameters."""

    class Steered(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            with torch.enable_grad():
                own = x.detach().requires_grad_()
                torch.tanh(self.first(own)).square().sum().backward()
            return self.head(torch.tanh(self.first(x + own.grad)))

    model, (x, y) = Steered().eval(), batch(5, 8)
    exact = loop_grad_norms(model, x, y, COLUMNS)
    held = model.first.weight.grad = torch.ones(8, 8)
    assert relative_error(per_example_grad_norms(model, x, y, COLUMNS), exact) < 1e-5
    assert model.first.weight.grad is held
    assert torch.equal(held, torch.ones(8, 8))
    assert model.first.bias.grad is None


def test_the_bound_counts_what_a_reversible_part_gathers():
    model, (x, y) = _Parted(reversible=True).eval(), batch(5, 8)
    found = batch_bound(model, x, y)
    F.cross_entropy(model(x), y, reduction="sum").backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert found["norm_of_sum"] == pytest.approx(float(whole), rel=1e-5)


def test_gradients_that_vanish_are_refused_by_their_size():
    """Their squares are none that float32 holds; in float64 they have their norms."""
    torch.manual_seed(0)
    layers = [part for _ in range(36) for part in (nn.Linear(8, 8), nn.Sigmoid())]
    model = nn.Sequential(*layers, nn.Linear(8, 4)).eval().requires_grad_(False)
    model[0].weight.requires_grad_()
    (x, y), columns = batch(4, 8), ("grad_l2_trainable",)
    with pytest.raises(ConfigError, match="whose squares float32 holds"):
        per_example_grad_norms(model, x, y, columns)
    exact = loop_grad_norms(model, x, y, columns)
    found = per_example_grad_norms(model.double(), x.double(), y, columns)
    assert relative_error(found, exact) < 1e-5


def test_small_norms_of_a_small_loss_are_taken():
    """What counts is what the network makes of a gradient of unit size."""

    def small(logits, labels):
        return 1e-20 * F.cross_entropy(logits, labels, reduction="none")

    model, (x, y) = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)), batch(4, 8)
    found = GradNormScorer(model, COLUMNS, loss=small).score(x, y).norms
    exact = loop_grad_norms(model, x, y, COLUMNS)
    assert relative_error({n: column.double() * 1e20 for n, column in found.items()}, exact) < 1e-5
