"""The streamed dynamics against the definitions, computed from stored logits."""

import itertools
import math

import numpy as np
import pytest
import torch

from raygrad.training.dynamics import DYNAMICS_COLUMNS, WINDOW, Dynamics

N, C = 37, 5
CPU = torch.device("cpu")


def logits_over(epochs, seed=0, scale=2.0):
    """Logits that drift towards the label for some examples, for others not: [T, N, C]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C, (N,), generator=generator)
    logits = torch.randn(epochs, N, C, generator=generator) * scale
    drift = torch.linspace(0, 3, epochs)[:, None] * torch.linspace(-1, 1, N)
    logits[:, torch.arange(N), labels] += drift
    return logits, labels


def streamed(logits, labels, batch=8, state_after=None, first=None):
    dynamics = Dynamics(len(labels), CPU, first)
    for epoch, found in enumerate(logits):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(labels)))
        for at in order.split(batch):
            dynamics.on_batch(at, found[at], labels[at])
        dynamics.after_epoch(epoch + 1, torch.nn.Identity())
        if epoch + 1 == state_after:
            state, dynamics = dynamics.state_dict(), Dynamics(len(labels), CPU, first)
            dynamics.load_state_dict(state)
    return dynamics.columns()


def tdds_of(p):
    """TDDS by its authors' loops over windows, from one example's probabilities [T, C]."""
    moving, epochs, window = 0.0, len(p), min(10, len(p))
    for k in range(epochs - window + 1):
        changes = [
            sum(
                abs(b * (math.log(b + 1e-8) - math.log(a + 1e-8)))
                for a, b in zip(*two, strict=True)
            )
            for two in itertools.pairwise(p[k : k + window])
        ]
        average = sum(changes) / max(len(changes), 1)
        norm = math.sqrt(sum((change - average) ** 2 for change in changes))
        moving += norm * 0.9 * (1 - 0.9) ** (epochs - window - k)
    return moving


def from_stored(logits, label):
    """One example's scores by the definitions, in plain Python, from its logits [T, C]."""
    right, margins, el2n, p = [], [], [], []
    for z in logits.double().tolist():
        shares = [math.exp(v - max(z)) for v in z]
        shares = [s / sum(shares) for s in shares]
        others = [v for k, v in enumerate(z) if k != label]
        p.append(shares[label])
        right.append(z.index(max(z)) == label)
        margins.append(z[label] - max(others))
        el2n.append(math.sqrt(sum((s - (k == label)) ** 2 for k, s in enumerate(shares))))
    epochs, window = len(p), min(WINDOW, len(p))
    deviations, duals = [], []
    for k in range(epochs - window + 1):
        part = p[k : k + window]
        mean = sum(part) / window
        square = sum((v - mean) ** 2 for v in part)
        deviations.append(math.sqrt(square / (window - 1)) if window > 1 else 0.0)
        duals.append((1 - mean) * deviations[-1])
    tdds = tdds_of(logits.double().softmax(1).tolist())
    forgotten = sum(a and not b for a, b in itertools.pairwise(right))
    return {
        "forgetting": forgotten if any(right) else math.inf,
        "aum": -sum(margins) / epochs,
        "dyn_unc": sum(deviations) / len(deviations),
        "dual": sum(duals) / len(duals),
        "tdds": tdds,
        "el2n_mean": sum(el2n[:WINDOW]) / window,
        "mean_probability": sum(p) / epochs,
    }


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 11, 25])
def test_every_column_equals_its_definition_on_stored_logits(epochs):
    logits, labels = logits_over(epochs)
    found = streamed(logits, labels)
    assert tuple(found) == DYNAMICS_COLUMNS
    for example in range(N):
        expected = from_stored(logits[:, example], int(labels[example]))
        for name, value in expected.items():
            assert found[name][example] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert found["aum"].dtype == np.float32


@pytest.mark.parametrize("state_after", [1, 9, 10, 13])
def test_a_restart_after_any_epoch_changes_nothing(state_after):
    logits, labels = logits_over(15)
    whole, resumed = streamed(logits, labels), streamed(logits, labels, state_after=state_after)
    for name in DYNAMICS_COLUMNS:
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_what_was_never_right_is_infinitely_forgotten_not_never():
    logits, labels = torch.zeros(3, 2, C), torch.tensor([4, 0])
    logits[:, 0, 1] = 1
    found = streamed(logits, labels)
    assert found["forgetting"].tolist() == [math.inf, 0]


def test_an_easy_an_ambiguous_and_a_mislabelled_example_are_ordered_as_the_scores_say():
    epochs = 20
    swinging = 3.0 * (-1.0) ** torch.arange(epochs)
    margin = torch.stack([torch.full((epochs,), 6.0), swinging, torch.full((epochs,), -6.0)])
    logits = torch.stack([margin.T, torch.zeros(epochs, 3)], 2)
    found = streamed(logits, torch.zeros(3, dtype=torch.int64))
    easy, ambiguous, wrong = range(3)
    for name in ("forgetting", "aum", "el2n_mean"):
        assert found[name][easy] < found[name][ambiguous] < found[name][wrong]
    for name in ("dyn_unc", "dual"):
        assert found[name][ambiguous] > max(found[name][easy], found[name][wrong]) + 0.1
    chances = found["mean_probability"]
    assert chances[easy] > chances[ambiguous] > chances[wrong]


@pytest.mark.parametrize(("first", "epochs"), [(3, 8), (3, 14), (12, 25), (12, 9), (25, 25)])
def test_dual_of_the_first_epochs_is_that_of_a_training_that_ended_there(first, epochs):
    """The other columns look at all epochs; a restart in between changes nothing."""
    logits, labels = logits_over(epochs)
    found = streamed(logits, labels, first=first)
    short, whole = streamed(logits[:first], labels), streamed(logits, labels)
    for name in DYNAMICS_COLUMNS:
        expected = short if name in ("dual", "tdds", "mean_probability") else whole
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)
    resumed = streamed(logits, labels, first=first, state_after=5)
    for name in DYNAMICS_COLUMNS:
        np.testing.assert_array_equal(resumed[name], found[name])


def test_too_many_probabilities_are_not_kept_and_it_is_said(monkeypatch, caplog):
    """The other columns are as they were."""
    logits, labels = logits_over(12)
    whole = streamed(logits, labels)
    monkeypatch.setattr("raygrad.training.tdds.MAX_NUMBERS", N * C - 1)
    found = streamed(logits, labels)
    assert "tdds is not followed, and stays empty" in caplog.text
    for name in DYNAMICS_COLUMNS:
        if name == "tdds":
            assert np.isnan(found[name]).all()
        else:
            np.testing.assert_array_equal(found[name], whole[name])


def test_a_training_that_older_code_began_has_no_tdds_and_says_so(caplog):
    logits, labels = logits_over(3)
    dynamics, other = Dynamics(N, CPU), Dynamics(N, CPU)
    dynamics.on_batch(torch.arange(N), logits[0], labels)
    state = dynamics.state_dict()
    del state["tdds"]
    other.load_state_dict(state)
    other.on_batch(torch.arange(N), logits[1], labels)
    other.after_epoch(1, torch.nn.Identity())
    assert np.isnan(other.columns()["tdds"]).all()
    assert np.isfinite(other.columns()["aum"]).all()
    assert "begun by a raygrad without it" in caplog.text
