"""Models with a state or a will of their own: scored exactly, and left as they were."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import COLUMNS, Small, agree, batch, relative_error


def in_place_steps():
    """Ways to change the input in place, each on images of its own range."""

    def masked(x):
        x[x < 0.2] = 0.0
        return x

    def clamped(x):
        x.clamp_(0.1, 0.9)
        return torch.log_(x)

    def by_view(x):
        x.view(len(x), -1)[:, ::2].mul_(0.5)
        return x

    def through_data(x):
        x.data.sub_(0.5)
        return x

    return {
        "sub div": lambda x: x.sub_(0.5).div_(0.25),
        "operator": lambda x: x.__itruediv__(4.0),
        "masked": masked,
        "clamped": clamped,
        "by view": by_view,
        "through data": through_data,
        "normalised by itself": lambda x: x.div_(x.amax((1, 2, 3), keepdim=True)),
        "copied into": lambda x: x.copy_(x.flip(-1)),
    }


@pytest.mark.parametrize("how", in_place_steps())
def test_a_model_that_changes_its_input_in_place_is_exact(how):
    class InPlace(Small):
        def forward(self, x):
            return super().forward(in_place_steps()[how](x))

    agree(InPlace(), torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_integer_images_changed_in_place_are_exact():
    class Bytes(Small):
        def forward(self, x):
            x //= 2
            return super().forward(x.to(self.head.weight.dtype) / 127)

    agree(Bytes(), torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))


class Kept(Small):
    """Parameters that the forward reads from where they are kept beside the module."""

    def __init__(self, where):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))
        self.where = where
        self.kept = {
            "list": [self.a, self.b],
            "dictionary": {"a": self.a, "b": self.b},
            "nested": [(self.a,), [self.b]],
            "partial": functools.partial(F.linear, weight=self.a),
            "method": self.mix,
        }[where]

    def mix(self, h):
        return h @ self.a

    def forward(self, x):
        h = self.body(x)
        if self.where == "list":
            h = torch.tanh(torch.tanh(h @ self.kept[0]) @ self.kept[1])
        elif self.where == "dictionary":
            h = torch.tanh(F.linear(h, self.kept["a"])) * self.kept["b"].sum(0)
        elif self.where == "nested":
            h = torch.einsum("bi,ij->bj", h, self.kept[0][0]) @ self.kept[1][0]
        else:
            h = torch.tanh(self.kept(h))
        return self.head(h)


@pytest.mark.parametrize("where", ["list", "dictionary", "nested", "partial", "method"])
def test_parameters_that_are_kept_elsewhere_count(where):
    agree(Kept(where), batch(4)[0], dtype=None)


def test_a_parameter_that_only_a_closure_holds_is_refused_by_name():
    model = Small().eval()
    weight = model.head.weight
    model.head.forward = lambda h: F.linear(h, weight)
    with pytest.raises(ConfigError, match=r"head\.weight.*closure"):
        per_example_grad_norms(model, *batch(4))


class Tabled(Small):
    """A table made from a parameter, kept from the first forward pass on."""

    def __init__(self, how):
        super().__init__()
        self.table, self.how = nn.Parameter(torch.randn(3, 8)), how
        self.cache, self.kept = {}, None

    def row(self):
        if self.how == "dictionary":
            if "row" not in self.cache:
                self.cache["row"] = self.table.softmax(0).sum(0)
            return self.cache["row"]
        if self.kept is None:
            self.kept = self.table.pow(2).sum(0)
        return self.kept

    def forward(self, x):
        return self.head(torch.tanh(self.body(x) * self.row()))


@pytest.mark.parametrize("how", ["dictionary", "attribute"])
def test_a_table_that_is_computed_once_counts_and_is_not_left_in_the_model(how):
    model = Tabled(how)
    agree(model, batch(4)[0])
    assert model.cache == {}
    assert model.kept is None


def test_a_table_that_an_evaluation_left_in_a_dictionary_counts():
    model, (x, y) = Tabled("dictionary").eval(), batch(4)
    exact = loop_grad_norms(copy.deepcopy(model), x, y, COLUMNS)
    with torch.no_grad():
        model(x)
    assert relative_error(GradNormScorer(model, COLUMNS).score(x, y).norms, exact) < 1e-5


def test_experts_that_only_later_images_use_count():
    """The parameters of the second expert have no gradient in the batch that made the plan."""

    class Experts(Small):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            h = self.body(x)
            bright = (x.mean((1, 2, 3)) > 0)[:, None]
            return self.head(torch.where(bright, self.first(h), self.second(h).detach() * 0 + h)
                             if not bool((~bright).any()) else
                             torch.where(bright, self.first(h), self.second(h)))  # fmt: skip

    model, (x, y) = Experts().eval(), batch(4)
    scorer = GradNormScorer(model, COLUMNS)
    for images in (x.abs(), -x.abs(), x.abs() + 1):
        exact = loop_grad_norms(model, images, y, COLUMNS)
        assert relative_error(scorer.score(images, y).norms, exact) < 1e-5


def test_hooks_on_activations_are_followed_in_every_subset():
    class Hooked(Small):
        def forward(self, x):
            h = F.relu(self.conv(x))
            h.register_hook(lambda g: 2 * g)
            h.retain_grad()
            return self.head(h.mean((2, 3)))

    agree(Hooked(), batch(4)[0])
    model, (x, y) = Hooked().eval(), batch(4)
    column = "grad_l2_last_layer_weights"
    exact = loop_grad_norms(model, x, y, (column,), last_layer="head")
    assert relative_error(per_example_grad_norms(model, x, y, (column,)), exact) < 1e-5


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_keeps_its_formulas(reentrant):
    class Saved(Small):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())

        def body(self, x):
            return checkpoint(self.block, self.conv(x), use_reentrant=reentrant).mean((2, 3))

    scorer = agree(Saved(), batch(4)[0])
    assert "fallback" not in scorer.explain(batch(4)[0])
    from torch.utils import checkpoint as module

    assert module.CheckpointFunction.__name__ == "CheckpointFunction"


@pytest.mark.parametrize("whole", [True, False])
def test_scripted_models_are_exact_and_their_last_layer_is_found(whole):
    model = Small().eval()
    x, y = batch(4)
    columns = (*COLUMNS, "grad_l1_last_layer_weights")
    exact = loop_grad_norms(model, x, y, columns, last_layer="head")
    if whole:
        scripted = torch.jit.trace(model, x)
    else:
        scripted = Small().eval()
        scripted.conv = torch.jit.script(scripted.conv)
    scorer = GradNormScorer(scripted, columns, last_layer="head" if whole else None)
    found = scorer.score(x, y).norms
    assert relative_error(found, exact) < 1e-5


def test_lazy_modules_are_refused_by_name():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ConfigError, match=r"lazy '1\.weight'"):
        per_example_grad_norms(model, *batch(4))


def test_a_model_made_in_inference_mode_is_exact():
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
                              nn.Linear(144, 4)).eval()  # fmt: skip
    x, y = batch(4)
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    twin.load_state_dict({name: t.clone() for name, t in model.state_dict().items()})
    exact = loop_grad_norms(twin.eval(), x, y, COLUMNS)
    assert relative_error(per_example_grad_norms(model, x, y, COLUMNS), exact) < 1e-5


def test_integer_and_complex_parameters_are_exact():
    class Odd(Small):
        def __init__(self):
            super().__init__()
            self.order = nn.Parameter(torch.randperm(8), requires_grad=False)
            self.filter = nn.Parameter(torch.randn(3, 8, 5, dtype=torch.cfloat))
            self.pairs = nn.Parameter(torch.randn(3, 8, 5, 2))

        def forward(self, x):
            spectrum = torch.fft.rfft2(x) * self.filter + torch.view_as_complex(self.pairs)
            return self.head(self.body(torch.fft.irfft2(spectrum, s=(8, 8)))[:, self.order])

    agree(Odd(), batch(4)[0], dtype=None)


def test_a_counter_and_a_list_of_what_was_seen_stay_as_they_were():
    class Counted(Small):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.count, self.seen = 0, []

        def forward(self, x):
            self.calls = self.calls + 1
            self.count += 1
            self.seen.append(x.shape)
            return super().forward(x)

    model = Counted()
    agree(model, batch(4)[0])
    assert model.count == 0
    assert model.seen == []


def test_weights_standardised_by_batch_norm_are_exact():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            flat = self.weight.reshape(1, self.out_channels, -1)
            weight = F.batch_norm(flat, None, None, training=True, momentum=0.0)
            return F.conv2d(x, weight.reshape_as(self.weight), self.bias)

    model = nn.Sequential(Standardised(3, 6, 3), nn.ReLU(), Standardised(6, 6, 3),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))  # fmt: skip
    scorer = agree(model, batch(4)[0])
    assert "fallback" not in scorer.explain(batch(4)[0])


def test_instance_normalisation_by_a_folded_batch_is_exact():
    class Folded(Small):
        def body(self, x):
            h = self.conv(x)
            flat = F.batch_norm(h.reshape(1, -1, *h.shape[2:]), None, None, training=True)
            return F.relu(flat.view_as(h)).mean((2, 3))

    agree(Folded(), batch(4)[0])


def test_a_recurrent_layer_leaves_convolutions_their_formulas():
    class Recurrent(Small):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(8, 8, batch_first=True)

        def forward(self, x):
            rows = F.relu(self.conv(x)).mean(3).transpose(1, 2)
            return self.head(self.lstm(rows)[0][:, -1])

    scorer = agree(Recurrent(), batch(4)[0])
    lines = scorer.explain(batch(4)[0]).splitlines()
    assert not any("fallback" in line for line in lines if line.startswith(("conv", "head")))


class Keeping(nn.Module):
    """Goes by something that was made of a parameter before, with its graph."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.how = nn.Linear(6, 6), nn.Linear(6, 4), how
        if how == "attribute":
            self.kept = self.body.weight * 2
        elif how == "buffer":
            self.register_buffer("kept", None)
            self.kept = self.body.weight * 2
        elif how == "list":
            self.held = [self.body.weight * 2]
        elif how == "nested":
            self.held = [[self.body.weight * 2]]
        elif how == "dictionary":
            self.cache: dict[str, torch.Tensor] = {"w": self.body.weight * 2}
        elif how == "left over":
            self.kept = self.body(torch.randn(2, 6))

    def forward(self, x):
        if self.how == "left over":
            self.kept = self.body(x)
            return self.head(torch.tanh(self.kept))
        if self.how == "dictionary":
            if "w" not in self.cache:
                self.cache["w"] = self.body.weight * 2
            return self.head(torch.tanh(x @ self.cache["w"]))
        kept = self.held[0] if hasattr(self, "held") else self.kept
        return self.head(torch.tanh(x @ (kept[0] if self.how == "nested" else kept)))


@pytest.mark.parametrize("how", ["attribute", "buffer", "list", "nested"])
def test_what_was_made_of_parameters_before_and_is_used_is_refused_by_their_names(how):
    """Its graph ends in parameters that no copy has: their norms would be zero."""
    with pytest.raises(ConfigError, match=r"body\.weight from a closure, a cache"):
        per_example_grad_norms(Keeping(how).eval(), *batch(3, 6), COLUMNS)


@pytest.mark.parametrize("how", ["dictionary", "left over"])
def test_what_is_made_anew_in_every_pass_is_not(how):
    """A cache that can be emptied is, and what an earlier pass left is not used."""
    x, y = batch(3, 6)
    scored, exact = Keeping(how).eval(), Keeping(how).eval()
    if how == "dictionary":
        exact.cache.clear()
    else:
        exact.kept = None
    found = per_example_grad_norms(scored, x, y, COLUMNS)
    assert relative_error(found, loop_grad_norms(exact, x, y, COLUMNS)) < 1e-5


def test_a_parameter_without_entries_has_no_part_in_any_norm():
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.none = nn.Linear(6, 4), nn.Parameter(torch.zeros(0, 4))

        def forward(self, x):
            return self.head(x) + x[:, :0] @ self.none + self.none.sum()

    model, (x, y) = Empty().eval(), batch(3, 6)
    found = per_example_grad_norms(model, x, y, COLUMNS)
    assert relative_error(found, per_example_grad_norms(model.head, x, y, COLUMNS)) == 0
