"""Named losses are torch's, and their gradients at the logits are autograd's, with all digits."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from raygrad.errors import ConfigError, DataError
from raygrad.scoring.losses import (
    LOSSES,
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    logit_gradient,
    named_loss,
)

CASES = {
    "cross_entropy": CrossEntropy(),
    "label_smoothing": CrossEntropy(label_smoothing=0.1),
    "class_weights": CrossEntropy(class_weights=(0.5, 2.0, 0.0, 1.0, 3.0)),
    "both": CrossEntropy(0.2, (0.5, 2.0, 0.1, 1.0, 3.0)),
    "binary": BinaryCrossEntropy(),
    "focal": Focal(),
    "focal half": Focal(0.5),
    "focal one": Focal(1.0),
    "focal none": Focal(0.0),
}


def _logits(scale=3.0):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 5, generator=generator, dtype=torch.float64) * scale


def _labels(kind):
    generator = torch.Generator().manual_seed(1)
    if kind == "classes":
        return torch.arange(12) % 5
    if kind == "shares":
        return torch.rand(12, 5, generator=generator, dtype=torch.float64).softmax(1)
    return (torch.rand(12, 5, generator=generator) > 0.6).long()


def _autograd(loss, logits, labels):
    free = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(free, labels).sum(), free)[0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_gradient_is_autograds(name, scale):
    loss, logits = CASES[name], _logits(scale)
    for kind in ["classes"] if name.startswith("focal") else ["classes", "shares"]:
        labels = _labels(kind)
        loss.check(logits, labels)
        exact = _autograd(loss, logits, labels)
        torch.testing.assert_close(loss.gradient(logits, labels), exact, rtol=1e-7, atol=1e-13)
        assert loss(logits, labels).shape == (12,)
        torch.testing.assert_close(loss.values(logits, labels), loss(logits, labels))


def test_losses_are_torchs():
    logits, classes, shares = _logits(), _labels("classes"), _labels("shares")
    weights = torch.tensor([0.5, 2.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    for labels in (classes, shares):
        expected = F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=0.2)
        torch.testing.assert_close(CASES["both"](logits, labels), expected)
    many = _labels("several")
    expected = F.binary_cross_entropy_with_logits(logits, many.double(), reduction="none").sum(1)
    torch.testing.assert_close(BinaryCrossEntropy()(logits, many), expected)
    p = logits.softmax(1).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(Focal(2.0)(logits, classes), -((1 - p) ** 2) * p.log())


def test_two_mixed_labels_are_the_mixture_of_their_losses():
    """Mixup's loss: the share of one label's loss and the rest of the other's."""
    logits, one, two = _logits(), torch.arange(12) % 5, (torch.arange(12) + 2) % 5
    mixed = 0.3 * F.one_hot(one, 5).double() + 0.7 * F.one_hot(two, 5).double()
    expected = 0.3 * logit_gradient(logits, one) + 0.7 * logit_gradient(logits, two)
    torch.testing.assert_close(CrossEntropy().gradient(logits, mixed), expected)


@pytest.mark.parametrize("nats", [5.0, 25.0, 60.0, 200.0])
def test_the_surest_examples_keep_their_digits(nats):
    """The label's entry is not 1 - 1; checked against the closed form of two classes."""
    logits, label = torch.tensor([[nats, 0.0]]), torch.tensor([0])
    q = 1 / (1 + math.exp(nats))
    onehot = torch.tensor([[1.0, 0.0]])
    entropy = math.log1p(math.exp(-nats))
    factor = q**2 + 2 * (1 - q) * q * entropy
    for loss, labels, value in (
        (CrossEntropy(), label, q),
        (CrossEntropy(), onehot, q),
        (CrossEntropy(class_weights=(3.0, 1.0)), label, 3 * q),
        (Focal(2.0), label, q * factor),
    ):
        found = loss.gradient(logits, labels)[0]
        assert found.tolist() == pytest.approx([-value, value], rel=1e-9), loss
    found = BinaryCrossEntropy().gradient(logits, label)[0].tolist()
    assert found == pytest.approx([-math.exp(-nats) / (1 + math.exp(-nats)), 0.5], rel=1e-9)


@pytest.mark.parametrize("name", [n for n in CASES if n != "both"])
def test_a_masked_class_and_far_logits_give_finite_gradients(name):
    logits = torch.tensor([[1e4, 0.0, -1e4, 3.0, 1.0], [0.0, -1e4, 1.0, 2.0, 3.0]])
    found = CASES[name].gradient(logits, torch.tensor([0, 1]))
    assert torch.isfinite(found).all()


def test_names_give_losses():
    assert named_loss("cross_entropy") == CrossEntropy()
    assert named_loss("label_smoothing") == CrossEntropy(label_smoothing=0.1)
    assert named_loss("label_smoothing=0.2") == CrossEntropy(label_smoothing=0.2)
    assert named_loss("class_weights=1,2.5") == CrossEntropy(class_weights=(1.0, 2.5))
    assert named_loss("focal") == Focal(2.0)
    assert named_loss("focal=1") == Focal(1.0)
    assert named_loss("binary_cross_entropy") == BinaryCrossEntropy()
    for name in LOSSES:
        loss = named_loss(name + "=1,2" * (name == "class_weights"))
        assert pickle.loads(pickle.dumps(loss)) == loss


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("crossentropy", "Did you mean 'cross_entropy'"),
        ("focal=x", "must be numbers"),
        ("focal=", "one value"),
        ("focal=1,2", "one value"),
        ("focal=-1", "at least 0"),
        ("focal=nan", "at least 0"),
        ("label_smoothing=1.5", r"in \[0, 1\]"),
        ("class_weights", "must have weights"),
        ("class_weights=1,-1", "at least 0"),
        ("cross_entropy=1", "without a value"),
    ],
)
def test_wrong_names_say_what_is_right(name, text):
    with pytest.raises(ConfigError, match=text):
        named_loss(name)


def test_wrong_labels_are_refused():
    logits = torch.zeros(2, 3)
    for loss, labels, error, text in (
        (CrossEntropy(), torch.tensor([0, 3]), DataError, "got 3"),
        (CrossEntropy(), torch.full((2, 3), 0.5), DataError, "sum to 1, got 1.5"),
        (CrossEntropy(), torch.full((2, 4), 0.25), ConfigError, r"got \[2, 4\]"),
        (CrossEntropy(class_weights=(1.0,)), torch.tensor([0, 1]), ConfigError, "must be 3"),
        (BinaryCrossEntropy(), torch.full((2, 3), 2), DataError, "got 2.0"),
        (BinaryCrossEntropy(), torch.full((2, 3), torch.nan), DataError, "got nan"),
        (Focal(), torch.full((2, 3), 0.5), ConfigError, "int64"),
    ):
        with pytest.raises(error, match=text):
            loss.check(logits, labels)
