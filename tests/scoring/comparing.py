"""Compares the fast path with the float64 single-example loop, on networks that tests share."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygrad.scoring import GRAD_COLUMNS, GradNormScorer
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.scoring.passes import GradNorms


def relative_error(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """The largest relative error over all columns and examples."""
    errors = [
        ((found[name].double() - exact[name]).abs() / exact[name].abs().clamp(min=1e-30)).max()
        for name in exact
    ]
    return float(torch.stack(errors).max())


def assert_exact(
    model: nn.Module,
    images: Tensor,
    *,
    classes: int = 4,
    last_layer: str | None = None,
    columns: tuple[str, ...] = GRAD_COLUMNS,
    tolerance: float = 1e-5,
    methods: dict[str, str] | None = None,
    fallback: bool | None = False,
) -> GradNormScorer:
    """Asserts that every column is that of the oracle, and that no fallback hid a wrong formula.

    Args:
        model: The classifier; it must come back unchanged.
        images: A batch.
        classes: How many classes there are.
        last_layer: The last layer's module, for the oracle.
        columns: The columns to compare.
        tolerance: The largest relative error.
        methods: Overrides of the cost model.
        fallback: Whether the fallback must (True) or must not (False) be used; None for either.
    """
    labels = torch.arange(len(images)) % classes
    if last_layer is None:
        columns = tuple(c for c in columns if "last_layer" not in c)
    exact = loop_grad_norms(model, images, labels, columns, last_layer=last_layer)
    before = copy.deepcopy(model.state_dict())
    scorer = GradNormScorer(model, columns, methods=methods)
    result: GradNorms = scorer.score(images, labels)
    assert relative_error(result.norms, exact) <= tolerance
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    if fallback is not None:
        assert ("fallback" in scorer.explain(images)) == fallback
    return scorer


def small_cnn() -> nn.Module:
    """Two convolutions and two linear layers, for images `[3, 8, 8]` of 4 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 4, 16), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def batch(n: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Images `[n, 3, 8, 8]`, or of another shape, and labels of 4 classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *(shape or (3, 8, 8)), generator=generator), torch.arange(n) % 4


class Plain(nn.Module):
    """A convolution, whatever, and a classifier of 8 inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)


COLUMNS = tuple(c for c in GRAD_COLUMNS if "last" not in c and "trainable" not in c)
"""The columns that need no name of a layer and no frozen parameters."""


class Small(nn.Module):
    """A convolution and a classifier; subclasses say what happens around them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def body(self, x):
        return F.relu(self.conv(x)).mean((2, 3))

    def forward(self, x):
        return self.head(self.body(x))


def agree(model: nn.Module, images: torch.Tensor, dtype: torch.dtype | None = torch.float64):
    """Asserts that all columns are the loop's, and that neither model nor images were changed."""
    model = model.eval()
    labels = torch.arange(len(images)) % 4
    exact = loop_grad_norms(copy.deepcopy(model), images.clone(), labels, COLUMNS, dtype=dtype)
    state, before = copy.deepcopy(model.state_dict()), images.clone()
    scorer = GradNormScorer(model, COLUMNS)
    for _ in range(2):
        found = scorer.score(images, labels)
        assert relative_error(found.norms, exact) < 2e-5
    assert torch.equal(images, before)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    return scorer
