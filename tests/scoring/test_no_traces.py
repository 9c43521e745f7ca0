"""The model comes back exactly as it was; what has no per-example gradient is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError, DataError
from raygrad.scoring import GRAD_COLUMNS, GradNormScorer, batch_bound, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import Plain, batch, relative_error, small_cnn


def fingerprint(model: nn.Module) -> list[object]:
    """Everything of a model that scoring might leave changed."""
    state: list[object] = []
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state.append((name, module.training, sorted(map(str, vars(module))), *map(len, hooks)))
        state.append(id(module.forward.__func__))
        state.extend((id(p), p.requires_grad, id(p.grad)) for p in module._parameters.values())
        state.extend(id(b) for b in module._buffers.values())
    state.extend(p._version for p in model.parameters())
    state.extend(b._version for b in model.buffers())
    return state


def test_the_model_comes_back_exactly_as_it_was():
    model, (x, y) = small_cnn(), batch(4)
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    model[4].register_forward_hook(lambda *_: None)
    before, grad = fingerprint(model), model[4].weight.grad.clone()
    per_example_grad_norms(model, x, y, GRAD_COLUMNS)
    batch_bound(model, x, y)
    assert fingerprint(model) == before
    assert torch.equal(model[4].weight.grad, grad)


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_the_model_comes_back_as_it_was_when_something_raises(when):
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            if when == "forward":
                raise KeyError("forward")
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise KeyError("backward")

    class Model(Plain):
        broken = False

        def forward(self, x):
            x = self.first(x)
            return self.head(Fails.apply(x) if self.broken else x)

    model, (x, y) = Model(), batch(4, 8)
    scorer = GradNormScorer(model, GRAD_COLUMNS)
    expected = scorer.score(x, y).norms
    model.broken = True
    before = fingerprint(model)
    with pytest.raises(KeyError, match=when):
        scorer.score(x, y)
    assert fingerprint(model) == before
    model.broken = False
    assert torch.equal(scorer.score(x, y).norms["grad_l2_all"], expected["grad_l2_all"])


def test_two_scorers_on_one_model_do_not_disturb_each_other():
    model, (x, y) = small_cnn(), batch(4)
    a, b = GradNormScorer(model, ("grad_l1_all",)), GradNormScorer(model, ("grad_l2_weights",))
    first = a.score(x, y).norms["grad_l1_all"]
    second = b.score(x, y).norms["grad_l2_weights"]
    assert torch.equal(a.score(x, y).norms["grad_l1_all"], first)
    assert torch.equal(b.score(x, y).norms["grad_l2_weights"], second)


def test_a_scorer_sees_what_training_changes_meanwhile():
    model, (x, y) = small_cnn(), batch(4)
    scorer = GradNormScorer(model, GRAD_COLUMNS)
    scorer.score(x, y)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    exact = loop_grad_norms(model, x, y, GRAD_COLUMNS, last_layer="10")
    assert relative_error(scorer.score(x, y).norms, exact) < 1e-5
    model[5] = nn.Sequential(nn.Conv2d(8, 8, 1), nn.GELU())
    exact = loop_grad_norms(model, x, y, GRAD_COLUMNS, last_layer="10")
    assert relative_error(scorer.score(x, y).norms, exact) < 1e-5


def test_scoring_works_inside_no_grad_and_inference_mode():
    model, (x, y) = small_cnn(), batch(4)
    expected = per_example_grad_norms(model, x, y)["grad_l2_weights"]
    with torch.no_grad():
        assert torch.equal(per_example_grad_norms(model, x, y)["grad_l2_weights"], expected)
    with torch.inference_mode():
        images = x.clone()
        assert torch.equal(per_example_grad_norms(model, images, y)["grad_l2_weights"], expected)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.BatchNorm1d(8), r"module 'layer' \(BatchNorm1d\)"),
        (nn.BatchNorm1d(8, track_running_stats=False), r"module 'layer' \(BatchNorm1d\)"),
        (nn.Dropout(0.1), r"p=0.1 in module 'layer' \(Dropout\)"),
        (nn.RReLU(), r"module 'layer' \(RReLU\)"),
    ],
)
def test_what_has_no_per_example_gradient_is_refused_by_name(layer, words):
    class Model(Plain):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.head(self.layer(self.first(x)))

    model = Model().train()
    with pytest.raises(ConfigError, match=words):
        per_example_grad_norms(model, *batch(4, 8))


def test_functional_noise_is_refused_by_the_module_that_makes_it():
    class Noisy(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5)

    class Model(Plain):
        def __init__(self):
            super().__init__()
            self.noise = Noisy()

        def forward(self, x):
            return self.head(self.noise(self.first(x)))

    with pytest.raises(ConfigError, match=r"dropout in module 'noise' \(Noisy\)"):
        per_example_grad_norms(Model(), *batch(4, 8))


def test_batch_statistics_without_running_ones_are_refused_even_in_eval_mode():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False),
                          nn.Linear(8, 4)).eval()  # fmt: skip
    with pytest.raises(ConfigError, match=r"module '1' \(BatchNorm1d\)"):
        per_example_grad_norms(model, *batch(4, 8))


def test_wrong_shapes_and_labels_are_named():
    model, (x, y) = small_cnn(), batch(4)
    with pytest.raises(ConfigError, match=r"shape \[4\].*got \[3\]"):
        per_example_grad_norms(model, x, y[:3])
    with pytest.raises(ConfigError, match="int64"):
        per_example_grad_norms(model, x, y.float())
    with pytest.raises(DataError, match=r"0\.\.3, got 9"):
        per_example_grad_norms(model, x, y + 6)
    with pytest.raises(ConfigError, match=r"at least one example, got \[0, 3, 8, 8\]"):
        per_example_grad_norms(model, x[:0], y[:0])
    with pytest.raises(ConfigError, match=r"\[B, C\], got .*\[\d+, 8, 2, 2\]"):
        per_example_grad_norms(model[:6], x, y)
    with pytest.raises(ConfigError, match="Did you mean 'grad_l2_all'"):
        per_example_grad_norms(model, x, y, ("grad_l2_al",))


def test_a_module_that_stands_at_two_places_keeps_its_parameters():
    """Torch's own functional_call leaves its stand-ins in such a model."""

    class Twice(Plain):
        def __init__(self):
            super().__init__()
            self.again, self.norm, self.tied = self.first, nn.BatchNorm1d(8), nn.Linear(8, 8)
            self.norm_again, self.tied.weight = self.norm, self.first.weight

        def forward(self, x):
            x = self.norm_again(self.again(torch.tanh(self.norm(self.first(x)))))
            return self.head(self.tied(x))

    model = Twice().eval()
    before = {id(t) for t in (*model.parameters(), *model.buffers())}
    x, y = batch(3, 8)
    per_example_grad_norms(model, x, y, GRAD_COLUMNS)
    batch_bound(model, x, y)
    assert {id(t) for t in (*model.parameters(), *model.buffers())} == before
    assert all(type(p) is nn.Parameter and p.requires_grad for p in model.parameters())
    with pytest.raises(ConfigError, match=r"forward and backward.*shapes"):
        per_example_grad_norms(model, x[:, :5], y)
    assert {id(t) for t in (*model.parameters(), *model.buffers())} == before
