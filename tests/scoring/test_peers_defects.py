"""What other implementations refuse or get wrong, one test a case: here all of it is exact."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GRAD_COLUMNS, GradNormScorer, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import assert_exact, relative_error


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def around(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), *layers)
    return nn.Sequential(body, nn.Flatten(), nn.Linear(body(images(2)).flatten(1).shape[1], 4))


CASES = {
    "eval mode": lambda: around(nn.Dropout(0.5)),
    "convolution and in-place ReLU": lambda: around(nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True)),
    "BatchNorm in eval with a trainable affine": lambda: around(nn.BatchNorm2d(4)),
    "groups=2": lambda: around(nn.Conv2d(4, 6, 3, groups=2)),
    "padding_mode=reflect": lambda: around(nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect")),
    "padding=same": lambda: around(nn.Conv2d(4, 6, (3, 4), padding="same", dilation=(2, 1))),
    "LayerNorm": lambda: around(nn.LayerNorm((4, 8, 8))),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_that_peers_refuse_or_get_wrong_are_exact(case):
    assert_exact(CASES[case]().eval(), images(), last_layer="2")


def test_a_module_used_twice_is_exact():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    assert_exact(around(layer, nn.Tanh(), layer), images(), last_layer="2")


def test_a_weight_tied_across_modules_is_exact():
    first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    second.weight = first.weight
    assert_exact(around(first, nn.Tanh(), second), images(), last_layer="2")


def test_a_bare_parameter_is_exact():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.randn(1, 4, 8, 8))

        def forward(self, x):
            return x + self.shift

    assert_exact(around(Shift()), images(), last_layer="2")


def test_batch_normalisation_in_training_mode_is_refused_not_answered_wrongly():
    with pytest.raises(ConfigError, match=r"module '0\.2' \(BatchNorm2d\)"):
        per_example_grad_norms(around(nn.BatchNorm2d(4)).train(), images(), torch.arange(4))


def test_a_mean_over_the_batch_does_not_scale_the_scores():
    """A mean-reduced loss makes each gradient 1/B of itself, so a ragged last batch scores high."""
    model, x = around(nn.Conv2d(4, 4, 3)), images(5)
    labels = torch.arange(5) % 4
    scorer = GradNormScorer(model, GRAD_COLUMNS)
    pairs = zip(x.split(4), labels.split(4), strict=True)
    parts = [scorer.score(a, b).norms for a, b in pairs]
    joined = {name: torch.cat([part[name] for part in parts]) for name in GRAD_COLUMNS}
    assert relative_error(joined, loop_grad_norms(model, x, labels, last_layer="2")) < 1e-5


def test_float32_norms_over_millions_of_values_keep_their_digits():
    """Plain sums in float32 are off by up to 8.5e-5 here."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(160, 512, 3), nn.Flatten(), nn.Linear(512 * 4, 3))
    x = torch.randn(1, 160, 4, 4)
    columns = ("grad_l1_weights", "grad_l2_weights", "grad_linf_weights")
    label = torch.tensor([1])
    exact = loop_grad_norms(model, x, label, columns)
    for method in ("grouped", "per_example", "unfold_gradient"):
        scorer = GradNormScorer(model, columns, methods={"0": method})
        assert relative_error(scorer.score(x, label).norms, exact) < 1e-5


def test_the_labels_gradient_is_that_of_cross_entropy():
    model, x, y = around(), images(), torch.arange(4)
    loss = F.cross_entropy(model(x[:1]), y[:1])
    (gradient,) = torch.autograd.grad(loss, [model[2].weight])
    found = per_example_grad_norms(model, x, y, ("grad_l2_last_layer_weights",))
    value = float(found["grad_l2_last_layer_weights"][0])
    assert value == pytest.approx(float(gradient.norm()), rel=1e-5)
