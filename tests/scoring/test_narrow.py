"""Where the last layer alone is wanted, it alone is watched; the numbers are the oracle's."""

import types

import pytest
import torch
import torchvision
from torch import nn

from raygrad.scoring import GradNormScorer, per_example_grad_norms
from raygrad.scoring.looking import standing_out
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import Plain, batch, relative_error, small_cnn

LAST = ("grad_l2_last_layer_weights", "grad_l1_last_layer_weights", "grad_linf_last_layer_weights")


def vit():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(16, 8, 2, 2, 32, 64, num_classes=4).eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def plan_of(scorer):
    return next(iter(scorer._plans.values()))


def exactly(model, x, y, last, columns=LAST):
    scorer = GradNormScorer(model, columns)
    found = scorer.score(x, y).norms
    assert relative_error(found, loop_grad_norms(model, x, y, columns, last_layer=last)) < 1e-5
    return plan_of(scorer)


def test_a_transformer_keeps_its_fused_attention():
    """The fused kernel runs in scoring exactly as often as in a plain forward pass."""
    model, (x, y) = vit(), batch(3, 3, 16, 16)
    assert exactly(model, x, y, "heads.head").inner == "heads.head"
    scorer = GradNormScorer(model, LAST)
    scorer.score(x, y)
    scorer.score(x, y)
    counts = []
    for run in (lambda: scorer.score(x, y), lambda: model(x)):
        with torch.no_grad(), torch.profiler.profile() as seen:
            run()
        counts.append(sum(e.name == "aten::_native_multi_head_attention" for e in seen.events()))
    assert counts == [2, 2]


@pytest.mark.parametrize("make", [small_cnn, Plain])
def test_other_networks_too(make):
    if make is Plain:
        model, (x, y) = nn.Sequential(Plain().first, nn.Tanh(), Plain().head), batch(4, 8)
        assert exactly(model, x, y, "2").inner == "2"
    else:
        assert exactly(make(), *batch(4), "10").inner == "10"


def test_a_frozen_backbone_is_watched_in_its_head_alone():
    model, (x, y) = vit(), batch(3, 3, 16, 16)
    model.requires_grad_(False)
    model.heads.requires_grad_(True)
    columns = ("grad_l2_trainable", "grad_l1_trainable", *LAST)
    assert exactly(model, x, y, "heads.head", columns).inner == "heads.head"


def test_preparing_takes_four_images_through_the_network():
    """One on a copy, it again beside another and by itself, with the model's own parameters.

    Both ends of the first batch are then audited, it runs again in halves, and what stands out.
    """
    model, (x, y) = vit(), batch(4, 3, 16, 16)
    seen = []
    whole = type(model).forward

    def forward(self, images):
        seen.append(len(images))
        return whole(self, images)

    model.__class__ = type("Counted", (type(model),), {"forward": forward})
    scorer = GradNormScorer(model, LAST)
    scorer.explain(x)
    assert seen == [1, 2, 1]
    scorer.score(x, y)
    scorer.score(x, y)
    out = len(set(standing_out(x)))
    assert seen == [1, 2, 1, 4, 1, 1, 2, 2, *[1] * out, 4]


def _twice(model):
    class Twice(Plain):
        def forward(self, x):
            return self.head(x) + self.head(x.tanh())

    return Twice()


def _pooled(model):
    class Pooled(Plain):
        def forward(self, x):
            return self.head(torch.stack([x, x.tanh()], 1)).mean(1)

    return Pooled()


def _tied(model):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(x @ self.head.weight.T @ self.head.weight)

    return Tied()


def _functional(model):
    class Functional(Plain):
        def forward(self, x):
            return nn.functional.linear(self.first(x).relu(), self.head.weight, self.head.bias)

    return Functional()


def _normed(model):
    model = Plain()
    return nn.Sequential(model.first, nn.ReLU(), nn.utils.parametrizations.weight_norm(model.head))


@pytest.mark.parametrize("make", [_twice, _pooled, _functional])
def test_a_head_that_is_used_otherwise_is_exact(make):
    exactly(make(None), *batch(4, 8), "head")


@pytest.mark.parametrize("make", [_tied, _normed])
def test_what_is_no_layer_of_its_own_is_not_narrowed(make):
    model, (x, y) = make(None), batch(4, 8)
    scorer = GradNormScorer(model, ("grad_l2_weights",))
    found = scorer.score(x, y).norms
    assert relative_error(found, loop_grad_norms(model, x, y, ("grad_l2_weights",))) < 1e-5
    assert plan_of(scorer).inner is None


def test_the_module_is_left_as_it_was_and_an_own_forward_is_kept():
    model, (x, y) = small_cnn(), batch(3)
    per_example_grad_norms(model, x, y, LAST)
    assert all("forward" not in vars(module) for module in model.modules())
    model[10].forward = types.MethodType(
        lambda self, x: nn.functional.linear(x, self.weight, self.bias) * 2, model[10]
    )
    own = model[10].forward
    found = per_example_grad_norms(model, x, y, LAST)
    assert relative_error(found, loop_grad_norms(model, x, y, LAST, last_layer="10")) < 1e-5
    assert model[10].forward is own


def test_a_head_that_is_not_called_any_more_is_noticed():
    class Switch(Plain):
        other = False

        def __init__(self):
            super().__init__()
            self.second = nn.Linear(8, 4)

        def forward(self, x):
            return (self.second if self.other else self.head)(torch.relu(self.first(x)))

    model, (x, y) = Switch().eval(), batch(4, 8)
    scorer = GradNormScorer(model, LAST)
    scorer.score(x, y)
    model.other = True
    exact = loop_grad_norms(model, x, y, LAST, last_layer="second")
    assert relative_error(scorer.score(x, y).norms, exact) < 1e-5


class _Padded(nn.Module):
    """An encoder of sequences, whose places of zeros are padding, and a mean over all places."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.encoder(x, src_key_padding_mask=x.abs().sum(2) == 0).mean(1))


def test_padded_sequences_have_the_same_norms_beside_another_column():
    """Torch packs them where no gradient is wanted, and then leaves zeros in their places."""
    model, (x, y) = _Padded().eval(), batch(5, 6, 8)
    x[1, 3:], x[4, 2:] = 0, 0
    plan = exactly(model, x, y, "head")
    assert plan.inner == "head"
    beside = per_example_grad_norms(model, x, y, (*LAST, "grad_l2_weights"))
    for name, column in per_example_grad_norms(model, x, y, LAST).items():
        torch.testing.assert_close(column, beside[name])
    assert "forward" not in vars(model.encoder)
    assert torch.backends.mha.get_fastpath_enabled()
