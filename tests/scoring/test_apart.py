"""Examples stay apart: dependence, chance, routing and ties are seen, and layouts are checked."""

import functools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import COLUMNS, Small, agree, batch, relative_error


class Routed(Small):
    """Calls that depend on the images."""

    def __init__(self, how):
        super().__init__()
        self.experts, self.how = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), how

    def forward(self, x):
        h = self.body(x)
        if self.how == "sorted":
            order = h[:, 0].argsort()
            return self.head(torch.tanh(self.experts[0](h[order])[order.argsort()]))
        route = h[:, :3].argmax(1)
        out = torch.zeros_like(h)
        for i, expert in enumerate(self.experts):
            rows = (route == i).nonzero()[:, 0]
            if self.how == "skipping" and len(rows) == 0:
                continue
            out = out.index_copy(0, rows, torch.tanh(expert(h[rows])))
        return self.head(h + out)


@pytest.mark.parametrize("how", ["sorted", "skipping", "empty calls"])
def test_calls_that_depend_on_the_images_are_exact(how):
    model = Routed(how).eval()
    scorer = GradNormScorer(model, COLUMNS)
    for seed in range(4):
        x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        y = torch.arange(6) % 4
        exact = loop_grad_norms(model, x, y, COLUMNS)
        assert relative_error(scorer.score(x, y).norms, exact) < 1e-5


def test_a_first_batch_of_nan_does_not_decide():
    model, (x, y) = Small().eval(), batch(4)
    scorer = GradNormScorer(model, COLUMNS)
    assert all(bool(v.isnan().all()) for v in scorer.score(torch.full_like(x, torch.nan), y)
               .norms.values())  # fmt: skip
    assert "fallback" not in scorer.explain(x)
    assert relative_error(scorer.score(x, y).norms, loop_grad_norms(model, x, y, COLUMNS)) < 1e-5


def over_the_batch():
    return {
        "mean": lambda h: h - h.mean(0),
        "range": lambda h: (h - h.min()) / (h.max() - h.min()),
        "quantised": lambda h: h + ((h * 9 / h.max()).round() * h.max() / 9 - h).detach(),
        "attention over images": lambda h: (h @ h.T).softmax(1) @ h,
        "the next image": lambda h: h + 0.01 * h.roll(1, 0),
        "whitened": lambda h: h / (h.norm() + 1e-6),
        "rank": lambda h: h * (1 + h[:, :1].argsort(0).argsort(0)),
    }  # fmt: skip


@pytest.mark.parametrize("how", over_the_batch())
def test_a_model_whose_examples_depend_on_each_other_is_refused(how):
    class Dependent(Small):
        def body(self, x):
            return over_the_batch()[how](super().body(x))

    with pytest.raises(ConfigError, match="other examples of its batch"):
        per_example_grad_norms(Dependent().eval(), *batch(4))


def test_a_dependence_that_begins_later_is_refused_at_the_next_audit():
    class Later(Small):
        mixes = False

        def body(self, x):
            h = super().body(x)
            return h - h.mean(0) if self.mixes else h

    model, (x, y) = Later().eval(), batch(100)
    scorer = GradNormScorer(model, COLUMNS)
    scorer.score(x, y)
    model.mixes = True
    x, y = x.repeat(5, 1, 1, 1), y.repeat(5)
    with pytest.raises(ConfigError, match="other examples of its batch"):
        scorer.score(x, y)


@pytest.mark.parametrize("source", ["numpy", "random", "own", "own numpy"])
def test_noise_from_any_generator_is_refused(source):
    generator = torch.Generator().manual_seed(0)
    draws = {
        "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
        "random": random.random,
        "own": lambda: torch.rand((), generator=generator),
        "own numpy": functools.partial(np.random.default_rng(0).normal),
    }

    class Noisy(Small):
        def body(self, x):
            return super().body(x) + 0.1 * draws[source]()

    with pytest.raises(ConfigError, match="random numbers"):
        per_example_grad_norms(Noisy().eval(), *batch(4))


def test_numbers_drawn_anew_from_the_same_seed_are_no_noise():
    class Projected(Small):
        def body(self, x):
            h = super().body(x)
            generator = torch.Generator().manual_seed(3)
            return h * torch.rand(8, generator=generator).to(h.dtype)

    agree(Projected(), batch(4)[0])


@pytest.mark.parametrize("first", ["blank", "half blank", "alike"])
def test_rows_of_a_folded_batch_are_told_apart_whatever_the_first_images_are(first):
    class Crops(Small):
        def body(self, x):
            h = F.relu(self.conv(torch.cat([x[..., :4, :4], x[..., 4:, 4:]]))).mean((2, 3))
            return torch.stack(h.split(len(x))).mean(0)

    model, (x, y) = Crops().eval(), batch(4)
    x[0] = 0
    if first == "blank":
        x[:] = 0.3
    elif first == "alike":
        x[:] = x[1]
    scorer = GradNormScorer(model, COLUMNS)
    for images in (x, batch(4)[0]):
        exact = loop_grad_norms(model, images, y, COLUMNS)
        assert relative_error(scorer.score(images, y).norms, exact) < 1e-5


@pytest.mark.parametrize("kind", ["as_strided", "group norm on pale images"])
def test_a_layout_that_the_model_is_not_exact_in_is_not_chosen(kind):
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.embed, self.head = nn.Conv2d(3, 3, 1), nn.Linear(48, 8), nn.Linear(8, 4)

        def forward(self, x):
            b, c, h, w = x.shape
            strides = (c * h * w, 4 * w, 4, h * w, w, 1)
            p = x.as_strided((b, h // 4, w // 4, c, 4, 4), strides).reshape(b, -1, c * 16)
            return self.head(torch.tanh(self.embed(p)).mean(1))

    if kind == "as_strided":
        agree(Patches(), batch(4)[0])
        return
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.GroupNorm(16, 16), nn.ReLU(),
                          nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(16, 4)).eval()  # fmt: skip
    x, y = 100 + torch.rand(4, 3, 32, 32) * 4, torch.arange(4)
    exact = loop_grad_norms(model, x, y, COLUMNS)
    limit = 4 * relative_error(loop_grad_norms(model, x, y, COLUMNS, dtype=None), exact)
    assert relative_error(per_example_grad_norms(model, x, y, COLUMNS), exact) < max(limit, 2e-5)


def test_a_batch_norm_whose_gradient_arrives_transposed_keeps_its_formula():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
            self.norm.running_var.uniform_(0.5, 1.5)
            self.norm.running_mean.normal_()

        def forward(self, x):
            h = self.norm(self.conv(x.view(len(x), -1).view(x.shape)))
            h = h.flatten(2).transpose(1, 2)
            return self.head(F.gelu(self.mix(h) + h).mean(1))

    scorer = agree(Tokens(), batch(4)[0])
    assert "fallback" not in scorer.explain(batch(4)[0])
    one = batch(1)
    exact = loop_grad_norms(Tokens().eval(), *one, COLUMNS)
    assert relative_error(scorer.score(*one).norms, exact) < 1e-5


def test_a_scale_that_starts_at_zero_keeps_its_formula_over_a_folded_batch():
    class Started(Small):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(8)
            nn.init.zeros_(self.norm.weight)

        def body(self, x):
            rows = self.conv(x).flatten(2).transpose(1, 2)
            return (rows + self.norm(rows.flatten(0, 1)).view_as(rows)).mean(1)

    scorer = agree(Started(), batch(4)[0])
    assert "fallback" not in scorer.explain(batch(4)[0])
