"""What scoring promises of any classifier: exactness, independence of the batch, no traces left."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError, DataError
from raygrad.scoring import (
    GRAD_COLUMNS,
    GradNormScorer,
    batch_bound,
    example_scores,
    per_example_grad_norms,
)
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import assert_exact, relative_error


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 4, 16), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def batch(n: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *(shape or (3, 8, 8)), generator=generator), torch.arange(n) % 4


class Plain(nn.Module):
    """A convolution, whatever, and a classifier of 8 inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)


def test_all_twelve_columns_from_one_pass_are_exact():
    assert_exact(small_cnn(), batch(5)[0], last_layer="10")


@pytest.mark.parametrize("column", GRAD_COLUMNS)
def test_each_column_asked_alone_is_what_it_is_among_all(column):
    model, (x, y) = small_cnn(), batch(4)
    alone = per_example_grad_norms(model, x, y, (column,))
    together = per_example_grad_norms(model, x, y, GRAD_COLUMNS)
    assert set(alone) == {column}
    assert alone[column].shape == (4,)
    assert alone[column].dtype == torch.float32
    torch.testing.assert_close(alone[column], together[column], rtol=2e-6, atol=0)


def test_the_default_column_is_the_papers():
    assert set(per_example_grad_norms(small_cnn(), *batch(2))) == {"grad_l2_weights"}


def test_scores_do_not_depend_on_the_batch():
    """Not on its size, its order, or on being in the last ragged one."""
    model, (x, y) = small_cnn(), batch(7)
    scorer = GradNormScorer(model, GRAD_COLUMNS)
    whole = scorer.score(x, y).norms
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    shuffled = scorer.score(x[order], y[order]).norms
    pieces = [scorer.score(a, b).norms for a, b in zip(x.split(3), y.split(3), strict=True)]
    singles = [scorer.score(x[i : i + 1], y[i : i + 1]).norms for i in range(7)]
    for name in GRAD_COLUMNS:
        for other in (
            torch.cat([piece[name] for piece in pieces]),
            torch.cat([single[name] for single in singles]),
            shuffled[name][order.argsort()],
        ):
            torch.testing.assert_close(other, whole[name], rtol=2e-6, atol=0)


def test_the_same_batch_gives_the_same_bits():
    model, (x, y) = small_cnn(), batch(5)
    first = GradNormScorer(model, GRAD_COLUMNS).score(x, y).norms
    second = GradNormScorer(model, GRAD_COLUMNS).score(x, y).norms
    assert all(torch.equal(first[name], second[name]) for name in GRAD_COLUMNS)


def test_logits_come_back_from_the_same_forward_pass():
    model, (x, y) = small_cnn(), batch(5)
    result = GradNormScorer(model).score(x, y)
    torch.testing.assert_close(result.logits, model(x).detach())
    assert not result.logits.requires_grad
    assert set(example_scores(result.logits, y)) >= {"loss", "el2n"}


def test_the_last_layer_alone_runs_no_backward_pass():
    class Irreversible(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise AssertionError("a backward pass was run")

    class Model(Plain):
        guarded = False

        def forward(self, x):
            x = torch.relu(self.first(x))
            return self.head(Irreversible.apply(x) if self.guarded else x * 2)

    model, (x, y) = Model(), batch(5, 8)
    columns = tuple(name for name in GRAD_COLUMNS if "last_layer" in name)
    scorer = GradNormScorer(model, columns)
    scorer.score(x, y)
    model.guarded = True
    found = scorer.score(x, y)
    model.guarded = False
    exact = loop_grad_norms(model, x, y, columns, last_layer="head")
    assert relative_error(found.norms, exact) < 1e-5
    torch.testing.assert_close(found.logits, model(x).detach())


def test_a_last_layer_that_is_pooled_afterwards_is_exact():
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x, y = batch(3)
    columns = tuple(name for name in GRAD_COLUMNS if "last_layer" in name)
    exact = loop_grad_norms(model, x, y, columns, last_layer="2")
    for asked in (columns, GRAD_COLUMNS):
        found = per_example_grad_norms(model, x, y, asked)
        assert relative_error({name: found[name] for name in columns}, exact) < 1e-5


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


def test_an_aliased_in_place_addition_is_noticed():
    class Alias(Plain):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.randn(8))

        def forward(self, x):
            y = x = self.first(x)
            y += self.shift
            return self.head(torch.tanh(x))

    assert_exact(Alias(), batch(4, 8)[0], last_layer="head", fallback=None)


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


@pytest.mark.parametrize("form", ["channels_last", "strided", "expanded"])
def test_any_memory_format_is_exact(form):
    x, _ = batch(4)
    model = small_cnn()
    if form == "channels_last":
        x, model = (
            x.contiguous(memory_format=torch.channels_last),
            model.to(memory_format=torch.channels_last),
        )
    elif form == "strided":
        x = torch.randn(4, 3, 16, 8)[:, :, ::2].transpose(2, 3)
    else:
        x = x[:1].expand(4, -1, -1, -1)
    assert_exact(model, x, last_layer="10")


def test_a_float64_model_is_exact_to_float32_output():
    model, (x, y) = small_cnn().double(), batch(4)
    found = per_example_grad_norms(model, x.double(), y, GRAD_COLUMNS)
    exact = loop_grad_norms(model, x.double(), y, GRAD_COLUMNS, last_layer="10")
    assert relative_error(found, exact) < 2e-7


def test_bf16_autocast_is_near_and_accumulates_in_float32():
    model, (x, y) = small_cnn(), batch(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scorer = GradNormScorer(model, GRAD_COLUMNS)
        found = scorer.score(x, y)
        assert "fallback" not in scorer.explain(x)
    exact = loop_grad_norms(model, x, y, GRAD_COLUMNS, last_layer="10")
    assert all(value.dtype == torch.float32 for value in found.norms.values())
    assert 1e-5 < relative_error(found.norms, exact) < 0.1


def test_a_bf16_model_is_near():
    model, (x, y) = small_cnn(), batch(8)
    exact = loop_grad_norms(model, x, y, GRAD_COLUMNS, last_layer="10")
    found = per_example_grad_norms(copy.deepcopy(model).bfloat16(), x.bfloat16(), y, GRAD_COLUMNS)
    assert relative_error(found, exact) < 0.1


@pytest.mark.parametrize("how", ["wrapper", "module"])
def test_compiled_models_are_seen_through(how):
    model, (x, y) = small_cnn(), batch(4)
    expected = per_example_grad_norms(model, x, y, GRAD_COLUMNS)
    if how == "wrapper":
        compiled = torch.compile(model, backend="eager")
    else:
        compiled = copy.deepcopy(model)
        compiled.compile(backend="eager")
    compiled(x)
    found = per_example_grad_norms(compiled, x, y, GRAD_COLUMNS)
    assert all(torch.equal(found[name], expected[name]) for name in GRAD_COLUMNS)


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


def test_a_method_can_be_overridden_and_is_explained():
    model, (x, y) = small_cnn(), batch(4)
    plain = GradNormScorer(model)
    table = plain.explain(x)
    assert "last layer: 10.weight" in table
    assert "rank_one" in table
    forced = GradNormScorer(model, methods={"4": "per_example", "0.weight": "unfold_gradient"})
    lines = forced.explain(x).splitlines()
    assert any(line.startswith("4.") and "per_example" in line for line in lines)
    assert any(line.startswith("0.") and "unfold_gradient" in line for line in lines)
    torch.testing.assert_close(
        forced.score(x, y).norms["grad_l2_weights"], plain.score(x, y).norms["grad_l2_weights"]
    )
    with pytest.raises(ConfigError, match=r"must be one of .*shifted_gram.*got 'gramm'"):
        GradNormScorer(model, methods={"4": "gramm"}).score(x, y)
    with pytest.raises(ConfigError, match="a layer with a method"):
        GradNormScorer(model, methods={"99": "gram"})


def test_the_batch_bound_is_the_summed_gradient_against_the_sum_of_norms():
    model, (x, y) = small_cnn(), batch(6)
    bound = batch_bound(model, x, y)
    loss = F.cross_entropy(model(x), y, reduction="sum")
    grads = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm()
    singles = loop_grad_norms(model, x, y, ("grad_l2_all",))["grad_l2_all"]
    assert bound["norm_of_sum"] == pytest.approx(float(norm), rel=1e-5)
    assert bound["sum_of_norms"] == pytest.approx(float(singles.sum()), rel=1e-5)
    assert 0 < bound["norm_of_sum"] <= bound["sum_of_norms"]


def test_the_batch_bound_is_tight_for_one_example():
    bound = batch_bound(small_cnn(), *batch(1))
    assert bound["norm_of_sum"] == pytest.approx(bound["sum_of_norms"], rel=1e-5)


@pytest.mark.gpu
def test_scores_on_a_gpu_are_those_of_the_cpu():
    model, (x, y) = small_cnn(), batch(7)
    expected = per_example_grad_norms(model, x, y, GRAD_COLUMNS)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = per_example_grad_norms(model.cuda(), x.cuda(), y.cuda(), GRAD_COLUMNS)
    for name in GRAD_COLUMNS:
        torch.testing.assert_close(found[name].cpu(), expected[name], rtol=1e-4, atol=0)
