"""The last layer is the one that makes the logits, whatever a mode or a graph shows of it."""

import pytest
import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.oracle import loop_grad_norms
from tests.scoring.comparing import relative_error

LAST = ("grad_l2_last_layer_weights",)


class _HiddenHead(torch.autograd.Function):
    """A product that no function mode sees."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight, g.T @ x


class _Headed(nn.Module):
    """Several matrices at the end, one of which a mode or a graph alone would not find."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(6, 4)
        self.last, self.row = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.rand(1, 4) + 1)
        self.vector, self.how = nn.Parameter(torch.randn(4)), how

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(x))
        if self.how == "a hidden product":
            return _HiddenHead.apply(h, self.other.weight)
        if self.how == "a hidden product after":
            return _HiddenHead.apply(self.head(h), self.last)
        if self.how == "a product of copies":
            return torch.bmm(h[:, None], self.other.weight.T.expand(len(x), -1, -1))[:, 0]
        if self.how == "a sum of products":
            return (h[:, None] * self.other.weight).sum(2)
        if self.how == "added to a vector":
            return torch.addmm(self.vector, h, self.other.weight.T)
        if self.how == "a product of indices":
            return torch.einsum("bi,oi->bo", h, self.other.weight)
        if self.how == "a distance":
            return -torch.cdist(h, self.other.weight)
        if self.how == "scaled by a row":
            return self.head(h) / self.row
        if self.how == "a hidden use before":
            return self.head(h + _HiddenHead.apply(_HiddenHead.apply(h, self.head.weight),
                                                   self.head.weight.T))  # fmt: skip
        if self.how == "added in place":
            return self.head(h).addmm_(h, self.other.weight.T)
        if self.how == "scaled in place":
            return self.head(h).div_(3.0)
        return self.head(h)


@pytest.mark.parametrize(
    ("how", "last"),
    [
        ("plain", "head"),
        ("a hidden product", None),
        ("a hidden product after", None),
        ("a hidden use before", "head"),
        ("a product of indices", "other"),
        ("a product of copies", "other"),
        ("a sum of products", None),
        ("added to a vector", "other"),
        ("a distance", None),
        ("added in place", None),
        ("scaled in place", "head"),
        ("scaled by a row", "head"),
    ],
)
@pytest.mark.parametrize("columns", [LAST, (*LAST, "grad_l2_weights")])
def test_the_last_layer_is_the_one_that_makes_the_logits_or_is_not_named(
    how: str, last: str | None, columns: tuple[str, ...]
) -> None:
    """Its norms are the loop's; where it is not known which matrix it is, nothing is guessed."""
    torch.manual_seed(0)
    model = _Headed(how).eval()
    x, y = torch.randn(5, 6), torch.arange(5) % 4
    if last is None:
        with pytest.raises(ConfigError, match="last_layer"):
            GradNormScorer(model, columns).score(x, y)
        return
    found = GradNormScorer(model, columns).score(x, y).norms
    assert relative_error(found, loop_grad_norms(model, x, y, columns, last_layer=last)) < 1e-5


@pytest.mark.parametrize("summed", [False, True])
def test_an_activation_that_is_made_of_tables_alone_is_no_weight(summed: bool) -> None:
    """To autograd rows of a table are made of parameters as weights are."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 4)
            self.places = nn.Parameter(torch.randn(5, 6))

        def forward(self, ids: Tensor) -> Tensor:
            h = self.table(ids) + self.places
            return self.head(h.sum(1) if summed else torch.tanh(h).sum(1))

    torch.manual_seed(0)
    model, x, y = Words().eval(), torch.randint(0, 9, (4, 5)), torch.arange(4)
    for columns in (LAST, (*LAST, "grad_l2_weights")):
        found = GradNormScorer(model, columns).score(x, y).norms
        assert (
            relative_error(found, loop_grad_norms(model, x, y, columns, last_layer="head")) < 1e-5
        )


class _Without(_Headed):
    """Its forward pass leaves no graph."""

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                return super().forward(x)
        if self.how == "numpy":
            return torch.from_numpy(super().forward(x).detach().numpy())
        return super().forward(x).detach()


@pytest.mark.parametrize("columns", [LAST, ("grad_l2_weights",)])
@pytest.mark.parametrize("how", ["no_grad", "numpy", "detached"])
def test_logits_without_a_graph_are_refused_and_not_scored_zero(
    how: str, columns: tuple[str, ...]
) -> None:
    """No loss that such a model has could train it."""
    with pytest.raises(ConfigError, match="depend on the parameters by autograd"):
        GradNormScorer(_Without(how).eval(), columns).score(torch.randn(5, 6), torch.arange(5) % 4)
