"""What scoring promises: exact columns, the same in any batch, memory format and precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import (
    GRAD_COLUMNS,
    GradNormScorer,
    batch_bound,
    example_scores,
    per_example_grad_norms,
)
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import Plain, assert_exact, batch, relative_error, small_cnn


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
