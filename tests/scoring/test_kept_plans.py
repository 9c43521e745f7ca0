"""per_example_grad_norms keeps what it prepared for a model, and notices every change of it."""

import copy
import functools
import gc
import types
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from raygrad.errors import ConfigError
from raygrad.scoring import functional, grad_norms, per_example_grad_norms
from raygrad.scoring.fingerprint import Fingerprint
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import batch, relative_error

COLUMNS = ("grad_l2_all", "grad_l1_weights", "grad_linf_biases", "grad_l2_trainable")
FACTOR = 1.0
SETTINGS = types.SimpleNamespace(factor=1.0, inner={"deep": [1.0]})


def helper(x):
    return x * FACTOR


class Settings:
    factor = 1.0


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class Folded(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.view(-1, 6, 4, 8)).view(x.shape)


class Changeable(nn.Module):
    """Everything that a forward pass may read stands somewhere in it."""

    kind = 1.0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.other = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.register_buffer("gate", torch.ones(()))
        self.scale, self.skip, self.function = 1.0, False, F.relu
        self.steps, self.table = [], {"factor": 1.0}
        self.part = functools.partial(torch.mul, other=1.0)
        self.unlisted = [torch.ones(())]

    def forward(self, x):
        x = self.function(self.act(self.norm(self.first(x)))) * self.scale * self.kind
        y = self.part(self.second(x)) * self.gate * self.table["factor"] * Settings.factor
        x = y if self.skip else x + y
        for step in self.steps:
            x = step(x)
        x = helper(x) * SETTINGS.factor * SETTINGS.inner["deep"][0] * self.unlisted[0]
        return self.head(x.mean((2, 3)))


def _assign(path, value):
    def change(model):
        *way, name = path.split(".")
        setattr(functools.reduce(getattr, way, model), name, value)

    return change


@torch.no_grad()
def _in_place(model):
    for parameter in model.parameters():
        parameter.mul_(0.9).add_(0.01)


def _step(model):
    model(batch(3)[0]).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.01).step()


def _trained(model):
    model.train()
    model(batch(3)[0])
    model.eval()


def _load(model):
    model.load_state_dict({n: t * 0.5 for n, t in model.state_dict().items()})


def _mixed_weights(model):
    model.other.weight = model.second.weight
    model.steps.append(model.other)


def _hook(model):
    model.act.register_forward_hook(lambda m, i, o: o * 0.5)


def _patched(model):
    model.norm.forward = lambda x: x * 2


def _data(model):
    model.second.weight.data = model.second.weight.data * 0.3


def _swap_layers(model):
    model.second, model.other = model.other, model.second


CHANGES = {
    "weights in place": _in_place,
    "weights by an optimiser": _step,
    "weights by .data": _data,
    "statistics by training": _trained,
    "a state dict": _load,
    "a new parameter": lambda m: _assign("second.weight", nn.Parameter(m.second.weight * 0.3))(m),
    "no bias any more": _assign("second.bias", None),
    "another activation": _assign("act", nn.Tanh()),
    "a layer of another form": _assign("second", nn.Conv2d(6, 6, 5, padding=2)),
    "a strided layer": lambda m: setattr(m, "skip", True) or _assign("second.stride", (2, 2))(m),
    "other padding": _assign("second.padding_mode", "circular"),
    "two layers swapped": _swap_layers,
    "a number": _assign("scale", 0.5),
    "a flag": _assign("skip", True),
    "a function": _assign("function", torch.tanh),
    "an entry of a dictionary": lambda m: m.table.update(factor=0.5),
    "a step more": lambda m: m.steps.append(m.other),
    "a weight used again": lambda m: m.steps.append(m.second),
    "a weight tied": _mixed_weights,
    "a partial": _assign("part", functools.partial(torch.mul, other=0.5)),
    "a buffer in place": lambda m: m.gate.mul_(0.5),
    "a new buffer": lambda m: _assign("gate", torch.full((), 0.3))(m),
    "a tensor in a list": lambda m: m.unlisted.__setitem__(0, torch.full((), 2.0)),
    "a hook": _hook,
    "a forward of its own": _patched,
    "a parametrisation": lambda m: parametrize.register_parametrization(
        m.second, "weight", Halved()
    ),
    "what requires a gradient": lambda m: m.first.requires_grad_(False),
    "epsilon": _assign("norm.eps", 0.3),
    "no affine": lambda m: _assign("norm", nn.BatchNorm2d(6, affine=False).eval())(m),
    "a grouped layer": _assign("second", nn.Conv2d(6, 6, 3, padding=1, groups=2)),
    "rows that are folded": lambda m: m.steps.append(Folded(m.other)),
}


@pytest.fixture
def prepared(monkeypatch):
    """Counts preparations."""
    count, real = [], grad_norms.prepare

    def counting(*args, **kwargs):
        count.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(grad_norms, "prepare", counting)
    return count


def _error(model, x, y, columns=COLUMNS, **options):
    exact = loop_grad_norms(model, x, y, columns, **options)
    return relative_error(per_example_grad_norms(model, x, y, columns, **options), exact)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_model_is_scored_as_it_is_now(name):
    model, (x, y) = Changeable().eval(), batch(3)
    assert _error(model, x, y) < 1e-5
    before = per_example_grad_norms(model, x, y, COLUMNS)
    CHANGES[name](model)
    after = per_example_grad_norms(model, x, y, COLUMNS)
    exact = loop_grad_norms(model, x, y, COLUMNS)
    assert relative_error(after, exact) < 1e-5
    assert any(not torch.equal(before[c], after[c]) for c in COLUMNS)
    assert relative_error(per_example_grad_norms(model, x, y, COLUMNS), exact) < 1e-5


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (__name__, "FACTOR", 0.5),
        (SETTINGS, "factor", 0.5),
        (SETTINGS, "inner", {"deep": [0.5]}),
        (Settings, "factor", 0.5),
        (Changeable, "kind", 0.5),
        (Changeable, "forward", lambda self, x: self.head(self.first(x).mean((2, 3)))),
        (__name__, "helper", lambda x: x.tanh()),
    ],
)
def test_what_a_forward_reads_from_outside_is_noticed(monkeypatch, where, name, value, prepared):
    model, (x, y) = Changeable().eval(), batch(3)
    per_example_grad_norms(model, x, y, COLUMNS)
    if isinstance(where, str):
        monkeypatch.setitem(Changeable.forward.__globals__, name, value)
    else:
        monkeypatch.setattr(where, name, value)
    assert _error(model, x, y) < 1e-5
    assert len(prepared) == 2


def test_a_model_that_begins_to_mix_examples_is_not_scored_by_the_old_plan():
    model, (x, y) = Changeable().eval(), batch(4)
    per_example_grad_norms(model, x, y, COLUMNS)
    model.steps.append(lambda x: x - x.mean(0))
    try:
        found = per_example_grad_norms(model, x, y, COLUMNS)
    except ConfigError:
        pass
    else:
        # Each example run alone, as a model that mixes has been scored.
        assert relative_error(found, loop_grad_norms(model, x, y, COLUMNS)) < 1e-5


def test_training_mode_is_refused_and_eval_mode_scored_again():
    model, (x, y) = Changeable().eval(), batch(3)
    before = per_example_grad_norms(model, x, y, COLUMNS)
    model.norm.train()
    with pytest.raises(ConfigError, match="training mode"):
        per_example_grad_norms(model, x, y, COLUMNS)
    model.eval()
    after = per_example_grad_norms(model, x, y, COLUMNS)
    assert all(torch.equal(before[c], after[c]) for c in COLUMNS)


def test_a_second_call_prepares_nothing_for_any_batch_size_loss_or_labels(prepared):
    model, (x, y) = Changeable().eval(), batch(8)
    per_example_grad_norms(model, x[:3], y[:3], COLUMNS)
    assert len(prepared) == 1
    for n in (3, 1, 2, 8):
        assert _error(model, x[:n], y[:n]) < 1e-5
    assert _error(model, x, (y + 1) % 4) < 1e-5
    assert _error(model, x, y, loss="focal") < 1e-5
    assert _error(model, x, y, loss=lambda z, t: z.square().sum(1)) < 1e-5
    model.zero_grad()
    assert len(prepared) == 1
    for form in (x[:, :, :6], x.double()):
        twin = copy.deepcopy(model).to(form.dtype) if form.dtype == torch.float64 else model
        assert _error(twin, form, y) < 1e-5
    assert len(prepared) == 3
    assert _error(model, x, y, COLUMNS[:1]) < 1e-5
    assert _error(model, x, y) < 1e-5
    assert len(prepared) == 4


def test_a_scorer_and_the_function_give_the_same_bits():
    model, (x, y) = Changeable().eval(), batch(5)
    scorer = grad_norms.GradNormScorer(model, COLUMNS)
    expected = scorer.score(x, y).norms
    for _ in range(3):
        found = per_example_grad_norms(model, x, y, COLUMNS)
        assert all(torch.equal(found[c], expected[c]) for c in COLUMNS)


def test_a_type_and_a_place_moved_to_are_noticed():
    model, (x, y) = Changeable().eval(), batch(3)
    per_example_grad_norms(model, x, y, COLUMNS)
    model.double()
    assert _error(model, x.double(), y) < 1e-6
    model.float().to(memory_format=torch.channels_last)
    assert _error(model, x, y) < 1e-5


def test_a_forward_pass_that_changes_for_no_visible_reason_is_noticed(tmp_path, prepared):
    """What it calls is compared too: here a file decides."""
    flag = tmp_path / "flag"

    class Hidden(Changeable):
        def forward(self, x):
            return super().forward(x - x.mean((2, 3), keepdim=True) if flag.exists() else x)

    model, (x, y) = Hidden().eval(), batch(3)
    assert _error(model, x, y) < 1e-5
    assert _error(model, x, y) < 1e-5
    assert len(prepared) == 1
    flag.touch()
    assert _error(model, x, y) < 1e-5
    assert len(prepared) == 2


def test_the_model_is_held_weakly():
    model, (x, y) = Changeable().eval(), batch(2)
    gc.collect()
    kept = len(functional._SHELF)
    per_example_grad_norms(model, x, y)
    assert len(functional._SHELF) == kept + 1
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert len(functional._SHELF) == kept


def test_a_fingerprint_ends_where_objects_refer_to_each_other():
    model = Changeable()
    loop = types.SimpleNamespace(model=model)
    loop.itself, model.loop = loop, loop
    model.long = list(range(100_000))
    assert Fingerprint(model) == Fingerprint(model)
    assert len(Fingerprint(model)._marks) < 20_000
