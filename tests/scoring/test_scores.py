import math

import pytest
import torch

from raygrad.errors import ConfigError, DataError
from raygrad.scoring import SCORE_COLUMNS, example_scores

EASY, AMBIGUOUS, MISLABELLED = range(3)


def test_every_score_orders_easy_before_ambiguous_before_mislabelled():
    """Scores that ignore the label cannot see the third; they must order the first two."""
    logits = torch.tensor([[6.0, 0.0, 0.0], [1.0, 0.9, 0.0], [0.0, 5.0, 0.0]])
    scores = example_scores(logits, torch.tensor([0, 0, 0]))
    for name in SCORE_COLUMNS:
        assert scores[name][EASY] < scores[name][AMBIGUOUS], name
    for name in ("loss", "el2n", "margin"):
        assert scores[name][AMBIGUOUS] < scores[name][MISLABELLED], name
    assert scores["prediction"].tolist() == [0, 0, 1]
    assert scores["correct"].tolist() == [True, True, False]


def test_scores_equal_their_definitions():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 7) * 3, torch.randint(0, 7, (50,))
    p = logits.double().softmax(1)
    scores = example_scores(logits, labels)
    for i, label in enumerate(labels.tolist()):
        row = p[i].tolist()
        others = [value for k, value in enumerate(row) if k != label]
        onehot = [float(k == label) for k in range(7)]
        expected = {
            "loss": -math.log(row[label]),
            "el2n": math.dist(row, onehot),
            "margin": math.log((1 + max(others) - row[label]) / (1 - max(others) + row[label])),
            "entropy": -sum(value * math.log(value) for value in row),
            "least_confidence": 1 - max(row),
        }
        for name, value in expected.items():
            assert float(scores[name][i]) == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_scores_of_the_surest_examples_keep_their_digits_and_order():
    """Also where 1 - p is no float32 any more, nor a float64."""
    logits = torch.tensor([[40.0, 0.0, -1.0], [30.0, 0.0, -1.0], [20.0, 0.0, -1.0]])
    scores = example_scores(logits, torch.tensor([0, 0, 0]))
    for name in ("loss", "el2n", "entropy", "least_confidence"):
        values = scores[name].tolist()
        assert 0 < values[0] < values[1] < values[2], name
    logits = torch.arange(1.0, 400.0)[:, None] * torch.tensor([[1.0, 0.0, -1.0]])
    for label in (0, 2):
        margin = example_scores(logits, torch.full((399,), label))["margin"]
        assert (margin.diff() * (1 if label == 2 else -1) > 0).all()


def test_margin_orders_and_signs_as_the_difference_of_probabilities():
    torch.manual_seed(0)
    logits, labels = torch.randn(400, 5).double() * 2, torch.randint(0, 5, (400,))
    p = logits.softmax(1)
    column = labels[:, None]
    plain = p.scatter(1, column, -1).amax(1) - p.gather(1, column)[:, 0]
    margin = example_scores(logits, labels)["margin"].double()
    assert torch.equal(plain.argsort(), margin.argsort())
    assert torch.equal(plain > 0, margin > 0)
    assert torch.allclose(margin, 2 * plain.atanh(), rtol=1e-6)
    two = example_scores(torch.tensor([[3.0, -1.5]]), torch.tensor([0]))["margin"]
    assert float(two) == pytest.approx(-4.5, rel=1e-6)


def test_a_sure_example_whose_other_classes_are_masked_is_the_easiest():
    logits = torch.tensor([[0.0, -math.inf], [50.0, 0.0]])
    margin = example_scores(logits, torch.tensor([0, 0]))["margin"]
    assert -701 < float(margin[0]) < -699
    assert float(margin[1]) == pytest.approx(-50, rel=1e-6)


def test_the_column_loss_is_the_loss_that_was_asked_for():
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    found = example_scores(logits, labels, loss="label_smoothing=0.2")
    plain = example_scores(logits, labels)
    expected = torch.nn.functional.cross_entropy(
        logits, labels, reduction="none", label_smoothing=0.2
    )
    torch.testing.assert_close(found["loss"], expected)
    own = example_scores(logits, labels, loss=lambda z, y: (z.sum(1) * y).sum())
    torch.testing.assert_close(own["loss"], logits.sum(1) * labels)
    assert all(torch.equal(found[name], plain[name]) for name in plain if name != "loss")


def test_logits_far_out_give_finite_scores():
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, float("-inf"), 0.0]])
    scores = example_scores(logits, torch.tensor([2, 0]))
    assert all(torch.isfinite(scores[name]).all() for name in SCORE_COLUMNS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_scores_are_float32_whatever_the_logits(dtype):
    scores = example_scores(torch.randn(3, 4).to(dtype), torch.tensor([0, 1, 2]))
    assert all(scores[name].dtype == torch.float32 for name in SCORE_COLUMNS)
    assert scores["prediction"].dtype == torch.int64
    assert scores["correct"].dtype == torch.bool


def test_wrong_labels_are_named():
    logits = torch.randn(3, 4)
    with pytest.raises(DataError, match=r"classes 0\.\.3, got 4"):
        example_scores(logits, torch.tensor([0, 1, 4]))
    with pytest.raises(DataError, match="got -1"):
        example_scores(logits, torch.tensor([0, -1, 4]))
    with pytest.raises(ConfigError, match=r"shape \[3\].*got \[2\]"):
        example_scores(logits, torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match=r"int64.*got torch.float32"):
        example_scores(logits, torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(ConfigError, match=r"got torch.float32 \[2, 4, 4\]"):
        example_scores(torch.randn(2, 4, 4), torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="got tuple"):
        example_scores((logits,), torch.tensor([0, 1, 2]))
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        example_scores(torch.randn(2, 1), torch.tensor([0, 0]))
