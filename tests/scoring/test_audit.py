"""How often an example of a later batch is scored again alone, and that it is."""

import pytest
import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.audit import EVERY, SHARE, Audit
from raygrad.scoring.cost import price_alone


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
