"""How often an example of a later batch is scored again alone, and that it is."""

import pytest
import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.audit import EVERY, SHARE, Audit
from raygrad.scoring.cost import price_alone
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import relative_error


@pytest.mark.parametrize("size", [16, 256, 1024])
@pytest.mark.parametrize("price", [1.0, 3.0, 500.0, 6e5])
def test_later_audits_take_their_share_of_what_scoring_costs_and_no_less(
    size: int, price: float
) -> None:
    """In images of a large batch a batch costs ``size + price - 1`` and an audit ``price``."""
    audit, logits = Audit(count=2, sizes={size}), torch.zeros(size, 3)
    audits, batches = 0, 4000
    for _ in range(batches):
        if audit.chosen(logits, price=price) is not None:
            audits += 1
            audit.count, audit.images, audit.batches = audit.count + 1, 0, 0
    share = audits * price / (batches * (size + price - 1))
    assert share <= SHARE + 1e-9
    # As often as that allows, up to once in so many images.
    between = max(-(-EVERY // size), -(-price / SHARE // (size + price - 1)))
    assert audits == batches // between
    assert between <= max(-(-EVERY // size), 1 / SHARE)


def test_an_image_alone_costs_hundreds_in_a_tiny_network_and_one_in_a_large_one() -> None:
    """Predicted from shapes, never timed: which examples are audited is the same everywhere."""
    tiny, large = price_alone(6 * 7840, 16 * 794, 1), price_alone(6 * 1.8e9, 1e8, 60)
    assert tiny > 100
    assert 1 < large < 1.2


class _Turncoat(nn.Module):
    """Mixes its examples from the hundredth call on."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        _Turncoat.calls += 1
        if _Turncoat.calls > 100 and len(x) > 1:
            x = x - 0.5 * x.mean(0)
        return self.layer(x)


def test_a_tiny_model_that_begins_to_mix_its_examples_is_refused_within_fifty_batches() -> None:
    """However small a network and large a batch, audits never end."""
    torch.manual_seed(0)
    scorer = GradNormScorer(_Turncoat().eval())
    x, y = torch.randn(700, 6), torch.arange(700) % 4

    def many() -> None:
        for _ in range(160):
            scorer.score(x, y)

    with pytest.raises(ConfigError, match="depend"):
        many()
    assert 100 < _Turncoat.calls <= 160


def _first_batch(size: int, *, both_ends: bool = False, logits: Tensor | None = None) -> list[int]:
    """The places that are audited in a scorer's first batch."""
    audit, places = Audit(), []
    logits = torch.zeros(size, 3) if logits is None else logits
    while (place := audit.chosen(logits, both_ends=both_ends)) is not None:
        places.append(place)
        audit.count, audit.images, audit.batches = audit.count + 1, 0, 0
    return places


def test_the_first_audit_is_of_the_last_example_and_there_is_no_second_of_the_batch() -> None:
    """Where both of two images were compared alone; where one was, both ends are audited."""
    assert _first_batch(100) == [99]
    assert _first_batch(100, both_ends=True) == [99, 0]
    assert _first_batch(1, both_ends=True) == [0]


def test_an_example_that_is_not_finite_is_not_the_one_that_is_audited() -> None:
    """It agrees with everything, so it would let a batch pass unseen."""
    logits = torch.zeros(5, 3)
    logits[[0, 3, 4]] = torch.nan
    assert _first_batch(5, both_ends=True, logits=logits) == [2, 1]
    assert _first_batch(5, logits=torch.full((5, 3), torch.inf)) == []


class _Mixing(nn.Module):
    """Changes some examples by others of their batch."""

    def __init__(self, how: str, least: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 4)
        self.how, self.least = how, least

    def forward(self, x: Tensor) -> Tensor:
        if len(x) >= self.least:
            x = MIXTURES[self.how](x)
        return self.head(torch.tanh(self.body(x)))


MIXTURES = {
    "scaled by the largest": lambda x: x / x.abs().max(),
    "the first by the second": lambda x: torch.cat([x[:1] - x[1:2].sum(0), x[1:]]),
    "the last by the first": lambda x: torch.cat([x[:-1], torch.sub(x[-1:], x[:1], alpha=0.5)]),
    "all but the first": lambda x: torch.cat([x[:1], x[1:] - x[:1]]),
    "all but the last": lambda x: torch.cat([x[:-1] - x[-1:], x[-1:]]),
    "what came before": lambda x: x.cumsum(0),
    "what comes after": lambda x: x.flip(0).cumsum(0).flip(0),
    "in order": lambda x: x[x[:, 0].argsort()],
    "upside down": lambda x: x.flip(0),
    "beyond a capacity": lambda x: x / (torch.arange(len(x)) < max(1, len(x) // 2))[:, None]
    .double().clamp(min=0.5).to(x.dtype),
}  # fmt: skip
"""None calls a function with a formula: those would be counted, and differ from batch to batch."""


@pytest.mark.parametrize("columns", [("grad_l2_weights",), ("grad_l2_last_layer_weights",)])
@pytest.mark.parametrize("how", MIXTURES)
def test_examples_that_change_each_other_are_refused_wherever_in_the_batch(
    how: str, columns: tuple[str, ...]
) -> None:
    """In the first batch already, though two images were looked at, or one and another."""
    torch.manual_seed(0)
    model = _Mixing(how, 1).eval()
    with pytest.raises(ConfigError, match="depend"):
        GradNormScorer(model, columns).score(torch.randn(9, 6), torch.arange(9) % 4)


@pytest.mark.parametrize("columns", [("grad_l2_weights",), ("grad_l2_last_layer_weights",)])
@pytest.mark.parametrize(
    "how", ["scaled by the largest", "the last by the first", "in order", "beyond a capacity"]
)
def test_what_only_large_batches_do_is_seen_at_their_end(
    how: str, columns: tuple[str, ...]
) -> None:
    """Two images show nothing of it; the first audit does, also beside examples of NaN."""
    torch.manual_seed(0)
    x = torch.randn(9, 6)
    for last in (x[8], torch.full((6,), torch.nan)):
        x = torch.cat([x[:8], last[None]]) if how == "beyond a capacity" else x
        with pytest.raises(ConfigError, match="depend"):
            GradNormScorer(_Mixing(how, 3).eval(), columns).score(x, torch.arange(9) % 4)


def test_what_only_large_batches_do_to_their_first_examples_is_seen_in_the_first() -> None:
    """The last one, and two images alone, show nothing of it; every example is then run alone."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 64), nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            h, half = torch.tanh(self.body(x)), len(x) // 2
            return self.head(torch.cat([h[:half].detach(), h[half:]]) if len(x) > 2 else h)

    torch.manual_seed(0)
    scorer, (x, y) = GradNormScorer(Halved().eval()), (torch.randn(250, 6), torch.arange(250) % 4)

    exact = loop_grad_norms(scorer._model, x, y, scorer.columns)
    assert relative_error(scorer.score(x, y).norms, exact) < 1e-5
