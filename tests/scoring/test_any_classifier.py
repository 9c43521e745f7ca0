"""Exactness for whatever a classifier is made of: heads, ties, bare parameters, no formula."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GRAD_COLUMNS, GradNormScorer, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import Plain, assert_exact, batch, relative_error


class TwoHeads(Plain):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return (self.head(x) + self.other(x)) / 2


def test_an_ambiguous_last_layer_must_be_named():
    model, (x, y) = TwoHeads(), batch(3, 8)
    columns = ("grad_l2_last_layer_weights", "grad_l1_all")
    with pytest.raises(ConfigError, match=r"other.weight.*head.weight|head.weight.*other.weight"):
        GradNormScorer(model, columns).score(x, y)
    found = GradNormScorer(model, columns, last_layer="other").score(x, y).norms
    exact = loop_grad_norms(model, x, y, columns, last_layer="other")
    assert relative_error(found, exact) < 1e-5
    with pytest.raises(ConfigError, match="Did you mean 'other'"):
        GradNormScorer(model, columns, last_layer="othr").score(x, y)
    assert_exact(model, x)


def test_tied_weights_add_before_the_norm():
    class Tied(Plain):
        def __init__(self):
            super().__init__()
            self.second = nn.Linear(8, 8)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))

    assert_exact(Tied(), batch(4, 8)[0], last_layer="head")
    assert_exact(Tied(), batch(4, 5, 8)[0].sum(1), last_layer="head")


def test_a_module_called_twice_adds_before_the_norm():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.norm = nn.BatchNorm2d(3)
            self.head = nn.Linear(48, 4)

        def forward(self, x):
            for _ in range(3):
                x = torch.tanh(self.norm(self.conv(x)))
            return self.head(F.avg_pool2d(x, 2).flatten(1))

    assert_exact(Twice().eval(), batch(4)[0], last_layer="head")


def test_a_tied_transposed_weight_adds_before_the_norm():
    class Auto(Plain):
        def forward(self, x):
            return self.head(F.linear(torch.tanh(self.first(x)), self.first.weight.t()))

    assert_exact(Auto(), batch(4, 8)[0], last_layer="head")


def test_a_weight_used_by_a_formula_and_by_none_is_exact():
    class Mixed(Plain):
        def forward(self, x):
            return self.head(self.first(x) * torch.einsum("bi,oi->bo", x, self.first.weight))

    assert_exact(Mixed(), batch(4, 8)[0], last_layer="head", fallback=True)


def test_unused_parameters_count_zero_and_frozen_ones_in_full():
    class Partly(Plain):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(3, 3)
            self.no_effect = nn.Linear(8, 8)
            self.first.weight.requires_grad_(False)
            self.head.bias.requires_grad_(False)

        def forward(self, x):
            self.no_effect(x)
            return self.head(torch.relu(self.first(x)))

    model = Partly()
    assert_exact(model, batch(4, 8)[0], last_layer="head")
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert not flags["first.weight"]
    assert flags["first.bias"]


def test_a_subset_without_parameters_scores_zero():
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 4, bias=False))
    assert per_example_grad_norms(model, *batch(2, 8), ("grad_l2_biases",))[
        "grad_l2_biases"
    ].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm", "old_weight_norm"])
def test_parametrised_weights_are_exact(norm):
    wrap = {
        "weight_norm": nn.utils.parametrizations.weight_norm,
        "spectral_norm": nn.utils.parametrizations.spectral_norm,
        "old_weight_norm": nn.utils.weight_norm,
    }[norm]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = wrap(nn.Conv2d(3, 5, 3))
            self.first = wrap(nn.Linear(180, 8))
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(torch.tanh(self.first(torch.tanh(self.conv(x)).flatten(1))))

    model = Model().eval()
    x, y = batch(4)
    reference = copy.deepcopy(Model().eval()) if norm != "old_weight_norm" else Model().eval()
    columns = tuple(c for c in GRAD_COLUMNS if "last" not in c)
    found = per_example_grad_norms(model, x, y, columns)
    rows = []
    reference.load_state_dict(model.state_dict())
    for image, label in zip(x, y, strict=True):
        loss = F.cross_entropy(reference(image[None]), label[None])
        grads = torch.autograd.grad(loss, list(reference.parameters()))
        names = [name for name, _ in reference.named_parameters()]
        flat = [g.flatten() for name, g in zip(names, grads, strict=True) if "bias" not in name]
        rows.append(torch.cat(flat).norm())
    torch.testing.assert_close(found["grad_l2_weights"], torch.stack(rows), rtol=1e-5, atol=0)


class Tokens(nn.Module):
    """Bare parameters: class token, position embedding, layer scale, a learned temperature."""

    def __init__(self, style: int):
        super().__init__()
        torch.manual_seed(0)
        self.style = style
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 5, 8))
        self.scale = nn.Parameter(torch.randn(8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.project = nn.Parameter(torch.randn(8, 8))
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.style == 0:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        elif self.style == 1:
            x = torch.cat([self.token.repeat(len(x), 1, 1), x], 1)
            x = self.place[:, : x.shape[1]] + x
        else:
            x = torch.cat([self.token + x.new_zeros(len(x), 1, 1), x], 1)
            x += self.place
        x = x + self.block(x) * self.scale.reshape(1, 1, -1)
        return self.head((x @ self.project)[:, 0] * self.temperature)


@pytest.mark.parametrize("style", [0, 1, 2])
def test_bare_parameters_are_exact(style):
    assert_exact(Tokens(style).eval(), batch(4)[0], last_layer="head")


def test_sequence_first_models_are_exact():
    class SequenceFirst(Plain):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.place = nn.Parameter(torch.randn(5, 1, 8))

        def forward(self, x):
            x = x.transpose(0, 1) + self.place
            return self.head(torch.tanh(self.norm(self.first(x))).sum(0))

    assert_exact(SequenceFirst(), batch(5, 5, 8)[0], last_layer="head")


@pytest.mark.parametrize("major", [True, False])
def test_windows_folded_into_the_batch_are_exact(major):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.slope = nn.PReLU(4)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            n = len(x)
            x = torch.stack([x[..., :4], x[..., 4:]], 1 if major else 0).flatten(0, 1)
            x = self.slope(self.norm(self.conv(x)))[:, :, ::2].flatten(1)
            return self.head(x.unflatten(0, (n, 2) if major else (2, n)).sum(1 if major else 0))

    assert_exact(Windows().eval(), batch(4, 3, 10, 8)[0], last_layer="head")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Bilinear(8, 8, 8),
        nn.GRU(8, 8, batch_first=True),
        nn.ConvTranspose1d(5, 5, 3, padding=1),
    ],
)
def test_what_has_no_formula_goes_through_the_fallback_by_itself(layer):
    class Other(Plain):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            x = self.first(x)
            y = self.layer(x, x) if isinstance(layer, nn.Bilinear) else self.layer(x)
            return self.head((y[0] if isinstance(y, tuple) else y).sum(1))

    assert_exact(Other(), batch(4, 5, 8)[0], last_layer="head", fallback=True)


def test_a_custom_function_that_hides_its_parameter_is_not_left_out():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            return g @ w.T, x.T @ g

    class Model(Plain):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Parameter(torch.randn(8, 8))

        def forward(self, x):
            return self.head(torch.tanh(Hidden.apply(self.first(x), self.hidden)))

    assert_exact(Model(), batch(4, 8)[0], last_layer="head", fallback=True)


def test_an_aliased_in_place_addition_keeps_its_formula():
    class Alias(Plain):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.randn(8))

        def forward(self, x):
            y = x = self.first(x)
            y += self.shift
            return self.head(torch.tanh(x))

    assert_exact(Alias(), batch(4, 8)[0], last_layer="head", fallback=False)


def test_control_flow_that_depends_on_the_data_is_exact():
    class Branching(Plain):
        def forward(self, x):
            x = self.first(x)
            for _ in range(1 + len(x)):
                x = torch.tanh(self.first(x)) if len(x) > 1 else torch.tanh(x)
            return self.head(x)

    # This model is another one for another batch: the loop over single examples is the definition.
    assert_exact(Branching(), batch(4, 8)[0], fallback=True)


def test_confident_examples_do_not_underflow():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    x, _ = batch(4, 8)
    with torch.no_grad():
        model[2].weight.mul_(200)
    y = model(x).argmax(1)
    columns = ("grad_l2_all", "grad_l1_weights", "grad_linf_biases")
    exact = loop_grad_norms(model, x, y, columns)
    found = per_example_grad_norms(model, x, y, columns)
    assert float(exact["grad_l2_all"].min()) < 1e-9
    assert all(bool((found[c] > 0).all()) for c in columns)


class _Asking(Plain):
    """Goes by what its parameter is."""

    def __init__(self, ask, scale=None):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0])) if scale is None else scale
        self.ask = ask

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.head(h * self.scale * 1.5 if self.ask(self.scale) else h)


@pytest.mark.parametrize("columns", [("grad_l2_weights",), ("grad_l2_last_layer_weights",)])
@pytest.mark.parametrize(
    "ask", [lambda p: isinstance(p, nn.Parameter), lambda p: getattr(p, "mult", 1.0) == 3.0]
)
def test_what_stands_for_a_parameter_passes_for_one(ask, columns):
    """By its class and by its attributes; the logits that come are the model's own."""
    model, (x, y) = _Asking(ask).eval(), batch(4, 8)
    model.scale.mult = 3.0
    result = GradNormScorer(model, columns).score(x, y)
    exact = loop_grad_norms(model, x, y, columns, last_layer="head", dtype=None)
    assert relative_error(result.norms, exact) < 1e-5
    torch.testing.assert_close(result.logits, model(x).detach())
    assert len(vars(model.scale)) == 1


@pytest.mark.parametrize("columns", [("grad_l2_weights",), ("grad_l2_last_layer_weights",)])
@pytest.mark.parametrize("ask", [lambda p: type(p) is nn.Parameter, lambda p: p.requires_grad])
def test_a_forward_that_nothing_can_stand_in_for_is_refused(ask, columns):
    model, (x, y) = _Asking(ask).eval(), batch(4, 8)
    with pytest.raises(ConfigError, match="stands for its parameters"):
        GradNormScorer(model, columns).score(x, y)
