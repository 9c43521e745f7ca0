"""Small networks drawn at random from what makes scoring hard, against the float64 loop."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import COLUMNS, relative_error

FIRST = ("as it is", "in place", "in place by itself", "masked in place")
NORMS = ("none", "batch", "group", "instance", "layer", "by hand")
MIDDLE = ("nothing", "twice", "tied", "sorted", "folded", "folded rows", "table", "cached table",
          "listed", "embedded", "einsum", "checkpoint", "residual")  # fmt: skip


class Composed(nn.Module):
    """A network of drawn parts; the parameters of parts that are not drawn are unused."""

    def __init__(self, first: str, norm: str, middle: list[str], seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm, self.middle = first, norm, middle
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=seed % 2 == 0)
        self.norms = nn.ModuleDict(
            {"batch": nn.BatchNorm2d(6), "group": nn.GroupNorm(2, 6),
             "instance": nn.InstanceNorm2d(6, affine=True), "layer": nn.LayerNorm([6, 6, 6])}
        )  # fmt: skip
        self.norms["batch"].running_mean.normal_()
        self.norms["batch"].running_var.uniform_(0.5, 2)
        self.scale, self.shift = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.randn(6))
        self.mix, self.tied = nn.Linear(6, 6), nn.Linear(6, 6)
        self.tied.weight = self.mix.weight
        self.table = nn.Parameter(torch.randn(4, 6))
        self.places = nn.Embedding(36, 6)
        self.listed = [nn.Parameter(torch.randn(6, 6)) for _ in range(2)]
        self.w0, self.w1 = self.listed
        self.cache: dict[str, torch.Tensor] = {}
        self.head = nn.Linear(6, 4)

    def normalised(self, h):
        if self.norm == "none":
            return h
        if self.norm == "by hand":
            centred = h - h.mean((1, 2, 3), keepdim=True)
            h = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
            return h * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        return self.norms[self.norm](h)

    def entered(self, x):
        if self.first == "in place":
            return x.sub_(0.3).div_(0.7)
        if self.first == "in place by itself":
            x /= x.abs().amax((1, 2, 3), keepdim=True)
        if self.first == "masked in place":
            x[x < 0] = 0.1
        return x

    def forward(self, x):
        h = torch.tanh(self.normalised(self.conv(self.entered(x))))
        h = h.flatten(2).transpose(1, 2)
        for step in self.middle:
            h = h + self.step(step, h)
        return self.head(h.mean(1))

    def step(self, step, h):
        n, t, d = h.shape
        if step in ("twice", "tied"):
            h = torch.tanh(self.mix(h))
            return torch.tanh(self.mix(h) if step == "twice" else self.tied(h))
        if step == "sorted":
            order = h.sum((1, 2)).argsort()
            return torch.tanh(self.mix(h[order])[order.argsort()])
        if step == "folded":
            return torch.tanh(self.mix(h.reshape(n * t, d))).view(n, t, d)
        if step == "folded rows":
            rows = torch.cat([h[:, : t // 2], h[:, t // 2 :]])
            return torch.cat(torch.tanh(self.tied(rows)).split(n), 1)
        if step == "table":
            return h * self.table.softmax(0)[h.detach().sum(2).abs().long() % 4]
        if step == "cached table":
            if "row" not in self.cache:
                self.cache["row"] = self.table.square().mean(0)
            return h * self.cache["row"]
        if step == "listed":
            return torch.tanh(torch.tanh(h @ self.listed[0]) @ self.listed[1])
        if step == "embedded":
            return self.places(torch.arange(t).expand(n, t))
        if step == "einsum":
            return torch.einsum("ntd,de->nte", h, self.w0).relu_()
        if step == "checkpoint":
            return torch.utils.checkpoint.checkpoint(self.mix, h, use_reentrant=False)
        return F.gelu(h)


@given(
    st.sampled_from(FIRST), st.sampled_from(NORMS),
    st.lists(st.sampled_from(MIDDLE), max_size=3), st.integers(0, 1000), st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=30, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@example("as it is", "instance", [], 0, 3)
def test_drawn_networks_are_exact_in_all_norms(first, norm, middle, seed, batch):
    """Every column is that of the loop over images beside their copies, in two batches running."""
    model = Composed(first, norm, middle, seed).eval()
    scorer = GradNormScorer(model, COLUMNS)
    for number in range(2):
        generator = torch.Generator().manual_seed(seed + number)
        x, y = torch.randn(batch, 3, 6, 6, generator=generator), torch.arange(batch) % 4
        exact = loop_grad_norms(model, x, y, COLUMNS)
        assert relative_error(scorer.score(x, y).norms, exact) < 5e-5


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("middle", [[], ["nothing"], ["folded"]])
def test_one_image_is_scored_as_one_of_many_by_a_plan_that_was_made_for_many(norm, middle):
    """Gradients come to the norm transposed: torch's kernel for instances is wrong for one then."""
    model = Composed("as it is", norm, middle, 0).eval()
    scorer = GradNormScorer(model, COLUMNS)
    generator = torch.Generator().manual_seed(0)
    for batch in (3, 1, 2, 1, 4):
        x, y = torch.randn(batch, 3, 6, 6, generator=generator), torch.arange(batch)
        exact = loop_grad_norms(model, x, y, COLUMNS)
        assert relative_error(scorer.score(x, y).norms, exact) < 5e-5


@given(
    st.sampled_from(NORMS), st.lists(st.sampled_from(MIDDLE), max_size=2), st.integers(0, 1000),
    st.sampled_from(["mean", "scale", "range", "neighbour", "share"]), st.integers(2, 5),
)  # fmt: skip
@settings(max_examples=15, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
def test_drawn_networks_that_mix_their_examples_are_refused(norm, middle, seed, how, batch):
    class Mixing(Composed):
        def normalised(self, h):
            h = super().normalised(h)
            if how == "mean":
                return h - h.mean(0)
            if how == "scale":
                return h / h.detach().abs().max()
            if how == "range":
                return (h - h.amin()) / (h.amax() - h.amin())
            if how == "neighbour":
                return 0.9 * h + 0.1 * h.flip(0)
            return h * h.mean((1, 2, 3)).softmax(0).view(-1, 1, 1, 1)

    x = torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(batch) % 4
    found, words = None, "other examples of its batch"
    try:
        found = GradNormScorer(Mixing("as it is", norm, middle, seed).eval(), COLUMNS).score(x, y)
    except ConfigError as error:
        words = str(error)
    assert "other examples of its batch" in words
    if found is not None:
        # What cannot be seen must not matter: alone the scores are the same.
        model = Mixing("as it is", norm, middle, seed).eval()
        assert relative_error(found.norms, loop_grad_norms(model, x, y, COLUMNS)) < 5e-3
