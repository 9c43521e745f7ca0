"""Norms of any loss's gradient are the oracle's, and what is no sum over examples is refused."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.errors import ConfigError, DataError
from raygrad.scoring import GradNormScorer, batch_bound, per_example_grad_norms
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.scoring.verdicts import Verdicts
from tests.scoring.comparing import batch, relative_error, small_cnn

COLUMNS = ("grad_l2_all", "grad_l1_weights", "grad_linf_biases", "grad_l2_last_layer_weights")
WEIGHTS = torch.tensor([0.5, 2.0, 0.3, 1.0])


def _shares(n):
    return torch.rand(n, 4, generator=torch.Generator().manual_seed(2)).softmax(1)


def _many(n):
    return (torch.rand(n, 4, generator=torch.Generator().manual_seed(3)) > 0.5).float()


def _poly(logits, labels):
    """Poly-1: cross-entropy and 1 - p of the label."""
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    return F.cross_entropy(logits, labels, reduction="none") + 1 - p


def _hinge(logits, labels):
    rivals = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return (1 + rivals - logits.gather(1, labels[:, None])[:, 0]).clamp(min=0).sum()


def _mixup(logits, labels):
    one, two, share = labels[:, 0].long(), labels[:, 1].long(), labels[:, 2]
    losses = [F.cross_entropy(logits, y, reduction="none") for y in (one, two)]
    return share * losses[0] + (1 - share) * losses[1]


def _in_place(logits, labels):
    return F.cross_entropy(logits.mul_(2), labels, reduction="sum")


CASES = {
    "default": (None, None),
    "name": ("cross_entropy", None),
    "label smoothing": ("label_smoothing=0.2", None),
    "class weights": ("class_weights=0.5,2,0.3,1", None),
    "soft labels": ("cross_entropy", _shares),
    "several labels": ("binary_cross_entropy", _many),
    "binary of classes": ("binary_cross_entropy", None),
    "focal": ("focal=2", None),
    "sum": (functools.partial(F.cross_entropy, reduction="sum"), None),
    "weights in a partial": (
        functools.partial(F.cross_entropy, weight=WEIGHTS, reduction="none"),
        None,
    ),
    "weights in a closure": (
        lambda z, y: F.cross_entropy(z, y, WEIGHTS.to(z), reduction="none"),
        None,
    ),
    "module": (nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), None),
    "module of several": (nn.MultiLabelSoftMarginLoss(reduction="none"), _many),
    "squared error": (lambda z, y: (z.softmax(1) - y).square().sum(), _shares),
    "poly": (_poly, None),
    "hinge": (_hinge, None),
    "mixup of two": (_mixup, lambda n: torch.stack([torch.arange(n) % 4, torch.arange(n) % 3,
                                                    torch.full((n,), 0.3)], 1)),
    "in place": (_in_place, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_norms_are_those_of_the_loss(name):
    loss, make = CASES[name]
    model, (x, y) = small_cnn(), batch(5)
    y = y if make is None else make(5)
    before = y.clone()
    found = per_example_grad_norms(model, x, y, COLUMNS, loss=loss)
    exact_y = y.double() if y.is_floating_point() and name != "default" else y
    oracle = loss
    if name in ("weights in a partial", "module"):
        oracle = functools.partial(F.cross_entropy, weight=WEIGHTS.double(), reduction="sum")
    exact = loop_grad_norms(model, x, exact_y, COLUMNS, last_layer="10", loss=oracle)
    # An example whose loss is flat has no gradient: hinge.
    found = {c: torch.where(exact[c] == 0, 1 + v, v) for c, v in found.items()}
    exact = {c: torch.where(v == 0, 1 + v, v) for c, v in exact.items()}
    assert relative_error(found, exact) < 1e-5
    assert torch.equal(y, before)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (F.cross_entropy, "mean over the batch: use reduction"),
        (nn.CrossEntropyLoss(weight=WEIGHTS), "sum over examples"),
        (lambda z, y: (z - z.mean(0)).square().sum(1), "sum over examples"),
        (lambda z, y: F.cross_entropy(z, y, reduction="none").topk(1).values.sum(), "sum over"),
        (lambda z, y: z.logsumexp(0).sum(), "sum over examples"),
        (lambda z, y: (F.dropout(z, 0.5) * 3).sum(1), "sum over examples"),
    ],
)
def test_a_loss_that_mixes_examples_is_refused(loss, text, batch_size):
    with pytest.raises(ConfigError, match=text):
        per_example_grad_norms(small_cnn(), *batch(batch_size), loss=loss)


@pytest.mark.parametrize(
    ("loss", "error", "text"),
    [
        ("focl", ConfigError, "Did you mean 'focal'"),
        (3, ConfigError, "a function of logits and labels, got int"),
        (lambda z, y: z, ConfigError, r"one value an example, \[5\], or their sum, got \[5, 4\]"),
        (lambda z, y: 1.0, ConfigError, "got float"),
        (lambda z, y: z.argmax(1).float(), ConfigError, "gradient at the logits"),
        (lambda z, y: z.detach().sum(1), ConfigError, "gradient at the logits"),
        (lambda z, y: (z * 0 - 1).log().sum(1), ConfigError, "finite at finite logits, got nan"),
        (lambda z, y: (z - z).abs().sqrt().sum(1), ConfigError, "finite, got"),
        (lambda z: z.sum(1), ConfigError, "must take logits .* got TypeError"),
        (lambda z, y: F.nll_loss(z, y + 9), ConfigError, "must take logits .* got IndexError"),
        ("class_weights=1,2", ConfigError, "must be 4"),
    ],
)
def test_what_is_no_loss_is_refused_by_name(loss, error, text):
    with pytest.raises(error, match=text):
        per_example_grad_norms(small_cnn(), *batch(5), loss=loss)


def test_labels_must_be_those_of_the_loss():
    model, (x, _) = small_cnn(), batch(5)
    for labels, error, text in (
        (torch.zeros(5), ConfigError, "int64"),
        (torch.zeros(4, dtype=torch.int64), ConfigError, r"shape \[5\]"),
        (torch.zeros(5, 4), DataError, "sum to 1"),
        (torch.full((5,), 7), DataError, "got 7"),
        ([0] * 5, ConfigError, "int64 tensor, got list"),
    ):
        with pytest.raises(error, match=text):
            per_example_grad_norms(model, x, labels)


def test_the_surest_examples_keep_their_digits_under_an_own_loss():
    """The function is computed in float64, also one that holds float32 tensors."""
    model, (x, y) = small_cnn(), batch(4)
    with torch.no_grad():
        model[10].bias.copy_(torch.tensor([22.0, 0.0, 0.0, 0.0]))
    y = torch.zeros_like(y)
    for loss in (CASES["weights in a partial"][0], CASES["module"][0], CASES["sum"][0]):
        found = per_example_grad_norms(model, x, y, COLUMNS, loss=loss)
        oracle = loss if loss is CASES["sum"][0] else CASES["weights in a closure"][0]
        exact = loop_grad_norms(model, x, y, COLUMNS, last_layer="10", loss=oracle)
        assert relative_error(found, exact) < 2e-5


def test_a_scorer_keeps_its_loss_and_the_bound_has_one_too():
    model, (x, y) = small_cnn(), batch(6)
    scorer = GradNormScorer(model, ("grad_l2_all",), loss="focal")
    whole = scorer.score(x, y).norms["grad_l2_all"]
    parts = [
        scorer.score(a, b).norms["grad_l2_all"] for a, b in zip(x.split(4), y.split(4), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=2e-6, atol=0)
    bound = batch_bound(model, x, y, loss="focal")
    assert bound["sum_of_norms"] == pytest.approx(float(whole.double().sum()), rel=1e-6)
    assert 0 < bound["norm_of_sum"] < bound["sum_of_norms"]


def test_trainable_is_what_requires_a_gradient_at_the_call():
    model, (x, y) = small_cnn(), batch(5)
    columns = ("grad_l2_trainable", "grad_l1_trainable", "grad_linf_trainable", "grad_l2_all")
    scorer = GradNormScorer(model, columns)
    for frozen in ((), (0,), (0, 1, 4), (0, 1, 4, 7)):
        for index in frozen:
            model[index].requires_grad_(False)
        exact = loop_grad_norms(model, x, y, columns)
        assert relative_error(scorer.score(x, y).norms, exact) < 1e-5
        alone = per_example_grad_norms(model, x, y, columns[:1])
        assert relative_error(alone, {columns[0]: exact[columns[0]]}) < 1e-5
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="require a gradient"):
        scorer.score(x, y)
    model.requires_grad_(True)
    found = scorer.score(x, y).norms
    torch.testing.assert_close(found["grad_l2_trainable"], found["grad_l2_all"])


def test_a_frozen_backbone_costs_no_backward_pass():
    """Only the head's norms are taken: nothing before it is a site of the plan."""
    model, (x, y) = small_cnn(), batch(3)
    for index in (0, 1, 4, 7):
        model[index].requires_grad_(False)
    scorer = GradNormScorer(model, ("grad_l2_trainable",))
    scorer.score(x, y)
    lines = [line for line in scorer.explain(x).splitlines() if "weight" in line]
    assert [line.split()[0] for line in lines if "l2" in line] == ["10.weight,"]


def test_labels_of_an_own_loss_stay_as_they_are_where_checks_come_later():
    """One logit and labels 0 and 1, or labels that the loss leaves out: no class of the logits."""

    def binary(logits, labels):
        return F.binary_cross_entropy_with_logits(
            logits[:, 0], labels.to(logits.dtype), reduction="none"
        )

    def ignoring(logits, labels):
        return F.cross_entropy(logits, labels, ignore_index=-100, reduction="none")

    x, _ = batch(4, 6)
    for classes, loss, y in ((1, binary, [0, 1, 1, 0]), (4, ignoring, [1, -100, 3, -100])):
        scorer = GradNormScorer(nn.Linear(6, classes), loss=loss)
        now, verdicts = scorer.score(x, torch.tensor(y)), Verdicts()
        later = scorer.score(x, torch.tensor(y), later=verdicts)
        verdicts.read()
        assert torch.equal(later.norms["grad_l2_weights"], now.norms["grad_l2_weights"])
