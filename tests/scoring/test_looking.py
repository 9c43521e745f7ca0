"""A plan's first batch runs again in another order: what few of its examples do is seen."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer, per_example_grad_norms
from raygrad.scoring.looking import standing_out
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import relative_error

COLUMN = "grad_l2_weights"


class _Net(nn.Module):
    """Two layers, and what a test does before, between or behind them."""

    def __init__(self, middle=lambda h: h, before=lambda x: x):
        super().__init__()
        self.first, self.head = nn.Linear(12, 16), nn.Linear(16, 4)
        self.middle, self.before = middle, before

    def forward(self, x):
        return self.head(self.middle(torch.relu(self.first(self.before(x)))))


def _data(seed, n=32):
    torch.manual_seed(seed)
    return torch.randn(n, 12), torch.randint(0, 4, (n,))


def test_gradients_that_are_clipped_for_a_few_images_are_refused():
    """By a hook or a function; neither of two images nor the last one shows anything of it."""

    def clipped(h):
        if h.requires_grad:
            h.register_hook(lambda g: g.clamp(-limit, limit))
        return h

    told = []
    for seed in range(4):
        (x, y), limit = _data(seed), 1e9
        model = _Net(clipped).eval()
        exact = loop_grad_norms(model, x, y, (COLUMN,), dtype=None)
        assert relative_error(per_example_grad_norms(model, x, y), exact) < 1e-5
        h = torch.relu(model.first(x)).detach().requires_grad_()
        z = model.head(h)
        direction = z.softmax(1) - F.one_hot(y, 4)
        direction = direction / direction.abs().amax(1, keepdim=True)
        most = float(torch.autograd.grad((z * direction).sum(), h)[0].abs().max())
        for share in (0.9, 0.8):
            limit = share * most
            try:
                found = GradNormScorer(model).score(x, y).norms
            except ConfigError as error:
                told.append(str(error))
            else:
                # Clipped where a ReLU lets little of it through.
                assert relative_error(found, exact) < 2e-3
    assert len(told) >= 6
    assert all("linear in the gradient" in words for words in told)


class _Routed(nn.Module):
    """Rows in the order of the expert that each goes to, as grouped products want them."""

    def __init__(self):
        super().__init__()
        self.first, self.route = nn.Linear(12, 16), nn.Linear(16, 4)
        self.up, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        h = torch.relu(self.first(x))
        order = self.route(h).argmax(1).argsort(stable=True)
        z = torch.relu(self.up(h[order]))
        return self.head(h + torch.zeros_like(z).index_copy(0, order, z))


def test_norms_of_rows_that_a_coarse_key_puts_in_order_are_not_swapped():
    for seed in range(10):
        x, y = _data(seed, 16)
        model = _Routed().eval().requires_grad_(False)
        model.up.weight.requires_grad_()
        columns = ("grad_l2_trainable",)
        exact = loop_grad_norms(model, x, y, columns)
        assert relative_error(per_example_grad_norms(model, x, y, columns), exact) < 1e-5


@pytest.mark.parametrize("dark", [0.5, 1.0])
def test_a_decision_of_the_whole_batch_that_one_image_would_take_otherwise_is_refused(dark):
    """The image stands in the middle; a blank one, which any scale leaves as it is, beside it."""

    def ranged(x):
        return x / 255 if x.max() > 1.5 else x

    x, y = _data(0, 16)
    x = x.abs() * 100 + 50
    x[5], x[6] = dark, 0
    with pytest.raises(ConfigError, match="depend on the other examples"):
        GradNormScorer(_Net(before=ranged).eval()).score(x, y)


def test_images_that_stand_out_are_the_blankest_the_darkest_and_the_brightest():
    x = torch.full((6, 2, 2), 3.0)
    x[1], x[2, 0], x[3], x[4, 1, 1] = 0, 0, 1, 90
    x[2, 1] = 9
    assert standing_out(x) == [1, 3, 3, 4]
    assert standing_out(x.byte()) == [1, 3, 3, 4]
    assert standing_out(x[..., :0]) == []


def _counted(model):
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return seen


def test_a_plan_costs_one_more_pass_and_no_batch_after_it():
    (x, y), model = _data(0, 40), _Net().eval()
    seen, scorer = _counted(model), GradNormScorer(model)
    scorer.score(x, y)
    assert sum(n for n in seen if n == 20) == 40
    seen.clear()
    scorer.score(x, y)
    assert seen == [40]


def test_a_scorer_looks_anew_where_the_weights_were_written_to():
    """By ``.data`` as well, which torch does not count; what was refused is refused again."""

    class Gated(_Net):
        def __init__(self):
            super().__init__()
            self.gate = nn.Parameter(torch.zeros(16))

        def forward(self, x):
            h = torch.tanh(self.first(x))
            return self.head(h + self.gate * (h - h.mean(0, keepdim=True)))

    (x, y), model = _data(0, 16), Gated().eval()
    scorer = GradNormScorer(model)
    for _ in range(2):
        scorer.score(x, y)
        per_example_grad_norms(model, x, y)
    model.gate.data.fill_(1.0)
    for _ in range(3):
        with pytest.raises(ConfigError, match="depend"):
            scorer.score(x, y)
    with pytest.raises(ConfigError, match="depend"):
        per_example_grad_norms(model, x, y)


def test_a_scorer_prepares_anew_where_a_setting_has_changed_the_calls():
    class Noisy(_Net):
        noise, slope = False, 1.0

        def forward(self, x):
            h = self.first(x) * self.slope
            return self.head(F.dropout(torch.relu(h), 0.5, self.noise))

    (x, y), model = _data(0, 16), Noisy().eval()
    scorer = GradNormScorer(model)
    for slope in (1.0, 3.0):
        model.slope = slope
        exact = loop_grad_norms(model, x, y, (COLUMN,))
        assert relative_error(scorer.score(x, y).norms, exact) < 1e-5
    model.noise = True
    with pytest.raises(ConfigError, match="random"):
        scorer.score(x, y)
