"""Members of the kinds that scoring must get right or refuse by name, and what preparing costs."""

import functools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer, outer, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import COLUMNS, Small, agree, batch, relative_error


class Drawn(Small):
    """A network whose middle is given as a function of itself and of `[B, 8]`."""

    def __init__(self, middle, **parts):
        super().__init__()
        self.middle, self.mix = middle, nn.Linear(8, 8)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.head(self.middle(self, self.body(x)))


def plan_of(scorer):
    return next(iter(scorer._plans.values()))


def mixed(self, h):
    return torch.tanh(self.mix(h))


@pytest.mark.parametrize("share", [1e-2, 1e-3])
def test_a_weak_dependence_on_a_neighbour_is_refused(share):
    """It moves logits by less than rounding does in deep networks; in float64 it is seen."""
    model = Drawn(lambda self, h: mixed(self, h + share * h.roll(1, 0))).eval()
    with pytest.raises(ConfigError, match="other examples of its batch"):
        per_example_grad_norms(model, *batch(4))


def _counted(self, h):
    self.count = getattr(self, "count", 0) + 1
    return mixed(self, h) * (1 + 0.01 * self.count)


def _remembered(self, h):
    self.kept.append(h.detach().mean())
    return mixed(self, h) * torch.stack(self.kept).sum()


@pytest.mark.parametrize("middle", [_counted, _remembered])
def test_a_model_that_goes_by_its_earlier_calls_is_refused(middle):
    model = Drawn(middle, kept=[]).eval()
    with pytest.raises(ConfigError, match=r"same logits twice.*keeps something of every call"):
        per_example_grad_norms(model, *batch(4))
    assert model.kept == []
    assert not hasattr(model, "count")


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + g.norm(dim=1, keepdim=True))


def _normalising_hook(module, given, out):
    return (given[0] / given[0].norm(dim=1, keepdim=True),)


@pytest.mark.parametrize("how", ["function", "hook"])
def test_a_backward_pass_that_is_not_linear_is_refused(how):
    """Its norms depend on the scale of the loss, so that there is no right one to give."""
    if how == "function":
        model = Drawn(lambda self, h: mixed(self, _Clipped.apply(h))).eval()
    else:
        model = Drawn(mixed).eval()
        model.mix.register_full_backward_hook(_normalising_hook)
    with pytest.raises(ConfigError, match="must be linear in the gradient"):
        per_example_grad_norms(model, *batch(4))


class _Einsum(nn.Module):
    """A layer without a formula."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8) * 0.4)

    def forward(self, h):
        return torch.einsum("nd,de->ne", h, self.w)


@pytest.mark.parametrize("make", [_Einsum, lambda: nn.Linear(8, 8)])
def test_a_hook_that_scales_a_modules_gradient_is_followed(make):
    model = Drawn(mixed, mix=make()).eval()
    model.mix.register_full_backward_hook(lambda module, given, out: (given[0] * 0.25,))
    agree(model, batch(3)[0])


@functools.lru_cache
def _kept_outside(model):
    return model.table.softmax(0)


OUTSIDE: dict[str, torch.Tensor] = {}


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_table_kept_outside_by_the_models_identity_counts(evaluated):
    model = Drawn(lambda self, h: torch.tanh(h @ _kept_outside(self)),
                  table=nn.Parameter(torch.randn(8, 8))).eval()  # fmt: skip
    x, y = batch(4)
    if evaluated:
        with torch.no_grad():
            model(x)
    bare = Drawn(lambda self, h: torch.tanh(h @ self.table.softmax(0)), table=model.table)
    bare.load_state_dict(model.state_dict())
    exact = loop_grad_norms(bare.eval(), x, y, COLUMNS)
    for _ in range(2):
        found = per_example_grad_norms(model, x, y, COLUMNS)
        assert relative_error(found, exact) < 1e-5


def test_a_table_kept_outside_for_all_models_is_refused_by_its_parameter():
    def middle(self, h):
        if "table" not in OUTSIDE:
            OUTSIDE["table"] = self.table.softmax(0)
        return torch.tanh(h @ OUTSIDE["table"])

    OUTSIDE.clear()
    model = Drawn(middle, table=nn.Parameter(torch.randn(8, 8))).eval()
    with pytest.raises(ConfigError, match=r"got table from .*a cache"):
        per_example_grad_norms(model, *batch(4), ("grad_l2_all",))


def _clamped(self, h):
    with torch.no_grad():
        self.mix.weight.clamp_(-0.1, 0.1)
    return mixed(self, h)


def _shrunk(self, h):
    self.mix.weight.data *= 0.9
    return mixed(self, h)


def _renormed(self, h):
    return self.places((h * 30).long().clamp(0, 15)).mean(1)


@pytest.mark.parametrize(
    ("middle", "words"),
    [(_clamped, "clamp_.*mix.weight"), (_shrunk, "mul_.*mix.weight"),
     (_renormed, "embedding in module 'places'.*places.weight")],
)  # fmt: skip
def test_a_forward_pass_that_changes_parameters_is_refused_before_it_does(middle, words):
    model = Drawn(middle, places=nn.Embedding(16, 8, max_norm=0.5)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match="leave the model as it is, got " + words):
        per_example_grad_norms(model, *batch(4))
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_a_parameter_without_entries_adds_nothing():
    agree(Drawn(mixed, empty=nn.Parameter(torch.zeros(0, 8))), batch(3)[0])


def test_what_autograd_cannot_go_through_is_refused_in_one_line():
    def middle(self, h):
        rows, places = torch.unique(h, dim=0, return_inverse=True)
        return mixed(self, rows)[places]

    with pytest.raises(ConfigError, match=r"forward and backward on images \[2, 3, 8, 8\].*unique"):
        per_example_grad_norms(Drawn(middle).eval(), *batch(4))


def _kernels_of_each_image(self, h):
    n = len(h)
    kernels = (self.route(h).sigmoid() @ self.bank).view(n * 8, 1, 1)
    return torch.tanh(F.conv1d(h.reshape(1, n * 8, 1), kernels, groups=n * 8).view(n, 8))


def _codebook(self, h):
    quantised = self.code[torch.cdist(h, self.code).argmin(1)]
    return mixed(self, h + (quantised - h).detach()) + quantised


def _batch_as_length(self, h):
    return torch.tanh(self.line(h.T[None]))[0].T


def _generated(self, h):
    return torch.tanh(F.linear(h, self.make(self.seed).view(8, 8), self.mix.bias))


KINDS = {
    "kernels of each image": (
        _kernels_of_each_image,
        {"route": lambda: nn.Linear(8, 3), "bank": lambda: nn.Parameter(torch.randn(3, 8))},
    ),
    "straight through a codebook": (
        _codebook, {"code": lambda: nn.Parameter(torch.randn(5, 8) * 0.3)}
    ),
    "the batch as length": (_batch_as_length, {"line": lambda: nn.Conv1d(8, 8, 1)}),
    "a generated weight": (
        _generated,
        {"seed": lambda: nn.Parameter(torch.randn(3)), "make": lambda: nn.Linear(3, 64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_other_members_are_exact(kind):
    middle, parts = KINDS[kind]
    torch.manual_seed(0)
    agree(Drawn(middle, **{name: make() for name, make in parts.items()}), batch(4)[0])


class Counted(nn.Module):
    """Counts the images that go through it, on whatever copy."""

    images = 0

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        Counted.images += len(x)
        return self.model(x)


@pytest.mark.parametrize(
    ("column", "most"), [("grad_l2_last_layer_weights", 5), ("grad_l2_weights", 8)]
)
def test_preparing_runs_few_images_through_the_network(column, most):
    """A transformer is prepared by five images for its last layer, and by eight for all others."""
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=4).eval()
    nn.init.normal_(vit.heads.head.weight)
    Counted.images = 0
    GradNormScorer(Counted(vit).eval(), (column,)).explain(batch(2, 3, 16, 16)[0])
    assert Counted.images <= most


def test_a_hook_on_a_parameters_gradient_is_refused_by_name():
    model, (x, y) = Drawn(mixed).eval(), batch(3)
    handle = model.head.weight.register_hook(lambda g: 2 * g)
    with pytest.raises(ConfigError, match=r"hook on its gradient, got one on 'head\.weight'"):
        per_example_grad_norms(model, x, y)
    handle.remove()
    assert per_example_grad_norms(model, x, y)


def _looked_up(self, h):
    return h + self.rows((h.detach().sum(1).abs() * 50).long() % 10)


def test_sparse_gradients_are_exact():
    agree(Drawn(_looked_up, rows=nn.Embedding(10, 8, sparse=True)), batch(4)[0])


@pytest.mark.parametrize("how", ["logits", "mean", "gradient"])
def test_a_model_that_goes_by_the_size_of_a_later_batch_is_refused(how):
    """The last batch of a data set is smaller than all before it."""

    def middle(self, h):
        one = float(len(h) == 3)
        if how == "logits":
            return mixed(self, h) * (1 + one)
        if how == "mean":
            return mixed(self, h - 0.1 * one * h.mean(0))
        return mixed(self, h * (1 + one) - h.detach() * one)

    scorer = GradNormScorer(Drawn(middle).eval(), COLUMNS)
    for _ in range(3):
        scorer.score(*batch(8))
    with pytest.raises(ConfigError, match="batch"):
        scorer.score(*batch(3))


def _sum_of_two(self, h):
    return torch.tanh(F.linear(h, self.a + self.b, self.c[0] + self.c[1]))


def _stacked(self, h):
    return torch.tanh(torch.einsum("bd,kde->be", h, torch.stack([self.a, self.b])))


def _equal_entries(self, h):
    return torch.tanh(h * self.a.sum() + self.b.mean())


@pytest.mark.parametrize("middle", [_sum_of_two, _stacked, _equal_entries])
@pytest.mark.parametrize("columns", [COLUMNS, ("grad_l1_all",), ("grad_l2_all",)])
def test_parameters_that_autograd_gives_one_gradient_keep_their_own_norms(middle, columns):
    """Norms are found in place: what several parameters share must not be overwritten."""
    torch.manual_seed(0)
    parts = {name: nn.Parameter(torch.randn(8, 8) * 0.3) for name in "abc"}
    model = Drawn(middle, **parts).eval()
    x, y = batch(4)
    scorer = GradNormScorer(model, columns)
    for n in (4, 1):
        exact = loop_grad_norms(model, x[:n], y[:n], columns)
        assert relative_error(scorer.score(x[:n], y[:n]).norms, exact) < 1e-5
    assert not plan_of(scorer).alone


@pytest.mark.parametrize("how", ["add_", "relu_", "mul_ of a part", "what was added to"])
def test_what_a_layer_over_tokens_returns_may_be_changed_in_place(how):
    """Torch makes the output of such a layer as a view; in-place additions may be statements."""

    def middle(self, h):
        tokens = self.mix(torch.stack([h, h.roll(1, 1), h.flip(1)], 1))
        if how == "add_":
            tokens.add_(self.place)
        elif how == "relu_":
            tokens.relu_()
        elif how == "what was added to":
            moved = tokens + self.place
            tokens.sin_()
            tokens[:, 0] = tokens[:, 0] + self.place[1]
            tokens = tokens * moved
        else:
            tokens[:, 1:].mul_(self.place[1:])
        return torch.tanh(tokens).mean(1)

    model = Drawn(middle, place=nn.Parameter(torch.randn(3, 8))).eval()
    scorer, (x, y) = GradNormScorer(model, COLUMNS), batch(4)
    assert relative_error(scorer.score(x, y).norms, loop_grad_norms(model, x, y, COLUMNS)) < 1e-5
    assert not plan_of(scorer).alone
    assert not plan_of(scorer).fallback


def test_a_stream_of_single_images_is_audited_too(monkeypatch):
    """What the check of a plan cannot see, here a method that it does not use, is seen at once."""
    right = outer._gram
    monkeypatch.setattr(outer, "_gram", lambda x, g: 1.5 * right(x, g))

    def middle(self, h):
        return torch.tanh(self.mix(torch.stack([h, h.roll(1, 1)], 1))).mean(1)

    column = ("grad_l2_weights",)
    model, (x, y) = Drawn(middle).eval(), batch(2)
    scorer = GradNormScorer(model, column, methods={"mix": "gram"})
    for one in (slice(0, 1), slice(1, 2)):
        exact = loop_grad_norms(model, x[one], y[one], column)
        assert relative_error(scorer.score(x[one], y[one]).norms, exact) < 1e-5


@pytest.mark.parametrize("how", ["logits", "gradient"])
def test_a_model_that_goes_by_places_in_the_batch_is_seen_in_its_first(how):
    """Other logits are refused; where gradients alone go by places every example runs alone."""

    def middle(self, h):
        later = (torch.arange(len(h)) > 2).to(h.dtype)[:, None]
        if how == "logits":
            return mixed(self, h) * (1 + 0.1 * later)
        return mixed(self, h * (1 + later) - h.detach() * later)

    model, (x, y) = Drawn(middle).eval(), batch(5)
    if how == "logits":
        with pytest.raises(ConfigError, match="batch"):
            per_example_grad_norms(model, x, y)
        return
    exact = loop_grad_norms(model, x, y, COLUMNS)
    assert relative_error(per_example_grad_norms(model, x, y, COLUMNS), exact) < 1e-5
