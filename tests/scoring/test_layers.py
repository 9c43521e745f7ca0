"""Every layer kind, with random hyper-parameters, against the float64 single-example loop."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from torch import nn

from raygrad.scoring import convolution
from raygrad.scoring.convolution import Geometry, convolution_norms, weight_gradients
from raygrad.scoring.outer import outer_norms
from tests.scoring.comparing import assert_exact

quickly = settings(
    max_examples=12, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip


class Head(nn.Module):
    """A layer under test between another layer and a classifier."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...], first: nn.Module | None = None):
        super().__init__()
        self.first = nn.Identity() if first is None else first
        self.layer = layer
        out = layer(self.first(torch.randn(1, *shape))) if shape else None
        self.head = nn.Linear(out.flatten(1).shape[1], 4)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(self.first(x))).flatten(1))


@st.composite
def convolutions(draw, dims: int):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs = groups * draw(st.integers(1, 3))
    outputs = groups * draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(dims))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(dims))
    if draw(st.booleans()) and dims < 3:
        padding, stride = "same", (1,) * dims
    if dims == 3 and mode == "reflect":
        mode = "zeros"
    sizes = tuple(draw(st.integers(5, 8)) for _ in range(dims))
    for size, k, d in zip(sizes, kernel, dilation, strict=True):
        assume(d * (k - 1) + 1 <= size)
        assume(padding != "same" or d * (k - 1) < size)
    layer = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dims - 1](
        inputs, outputs, kernel, stride, padding, dilation, groups,
        bias=draw(st.booleans()), padding_mode=mode,
    )  # fmt: skip
    return layer, (inputs, *sizes)


def _agree(layer, shape, methods=None):
    torch.manual_seed(0)
    first = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[len(shape) + 1](shape[0], shape[0], 1)
    model = Head(layer, shape, first)
    assert_exact(model, torch.randn(3, *shape), last_layer="head", methods=methods)


@given(st.data())
@quickly
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_of_any_geometry_are_exact(dims, data):
    _agree(*data.draw(convolutions(dims)))


@given(st.data())
@quickly
@pytest.mark.parametrize(
    "method",
    ["shifted_gram", "per_example", "grouped", "unfold_gram", "unfold_gradient"],
)
def test_every_method_of_a_convolution_is_exact(method, data):
    torch.manual_seed(0)
    layer, shape = data.draw(convolutions(data.draw(st.sampled_from([1, 2]))))
    out = layer(torch.randn(1, *shape)).shape
    assume(out[2:].numel() > 1)
    assume(any(k > 1 for k in layer.kernel_size) or any(s > 1 for s in layer.stride))
    first = (nn.Conv1d if len(shape) == 2 else nn.Conv2d)(shape[0], shape[0], 1)
    columns = ("grad_l2_weights",)
    if "gram" not in method:
        columns = ("grad_l1_weights", "grad_l2_all", "grad_linf_weights")
    assert_exact(
        Head(layer, shape, first), torch.randn(3, *shape), columns=columns,
        methods={"layer": method},
    )  # fmt: skip


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (4, 5)])
def test_a_convolution_with_one_output_position_is_exact(kernel):
    layer = nn.Conv2d(3, 6, kernel, groups=3)
    _agree(layer, (3, *kernel))


@pytest.mark.parametrize("shape", [(6,), (5, 6), (1, 6), (3, 4, 6), (40, 6)])
def test_linear_layers_over_vectors_and_sequences_are_exact(shape):
    torch.manual_seed(0)
    model = Head(nn.Linear(6, 5), shape, nn.Linear(6, 6, bias=False))
    assert_exact(model, torch.randn(3, *shape), last_layer="head")


@pytest.mark.parametrize("method", ["gram", "gradient"])
def test_both_methods_of_a_linear_layer_are_exact(method):
    model = Head(nn.Linear(6, 5), (7, 6), nn.Linear(6, 6))
    assert_exact(
        model, torch.randn(3, 7, 6), columns=("grad_l2_all",), methods={"layer": method}
    )  # fmt: skip


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (6,)), (nn.BatchNorm1d, (6, 5)),
                        (nn.BatchNorm2d, (6, 5, 4)), (nn.BatchNorm3d, (6, 3, 4, 2))],
)  # fmt: skip
def test_batch_normalisation_in_eval_mode_is_exact(kind, shape, affine):
    torch.manual_seed(0)
    layer = kind(6, affine=affine)
    layer.running_mean.normal_(3.0)
    layer.running_var.uniform_(0.1, 2.0)
    first = nn.Linear(shape[-1], shape[-1])
    assert_exact(Head(layer.eval(), shape, first).eval(), torch.randn(3, *shape), last_layer="head")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.LayerNorm(6), (6,)),
        (nn.LayerNorm(6), (5, 6)),
        (nn.LayerNorm((5, 6)), (5, 6)),
        (nn.LayerNorm((5, 6)), (3, 5, 6)),
        (nn.LayerNorm(6, bias=False), (3, 5, 6)),
        (nn.RMSNorm(6), (5, 6)),
        (nn.GroupNorm(2, 6), (6,)),
        (nn.GroupNorm(3, 6), (6, 4)),
        (nn.GroupNorm(1, 6), (6, 4, 5)),
        (nn.GroupNorm(6, 6), (6, 2, 3, 3)),
        (nn.InstanceNorm1d(6, affine=True), (6, 7)),
        (nn.InstanceNorm2d(6, affine=True), (6, 4, 5)),
        (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (6, 4, 5)),
        (nn.InstanceNorm3d(6), (6, 4, 2, 3)),
        (nn.PReLU(), (6, 4)),
        (nn.PReLU(6), (6, 4, 4)),
    ],
)
def test_other_normalisations_and_slopes_are_exact(layer, shape):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    first = nn.Linear(shape[-1], shape[-1])
    assert_exact(Head(layer.eval(), shape, first).eval(), torch.randn(3, *shape), last_layer="head")


class Words(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table = nn.Embedding(9, 6, **options)
        self.head = nn.Linear(6, 4)

    def forward(self, ids):
        return self.head(torch.tanh(self.table(ids)).sum(1))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"padding_idx": -1}])
def test_embeddings_with_repeated_indices_are_exact(options):
    ids = torch.tensor([[1, 1, 2, 8], [3, 3, 3, 3], [0, 5, 7, 2]])
    assert_exact(Words(**options), ids, last_layer="head")


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention_is_exact(batch_first, bias):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first)

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            y = self.attention(x, x, x, need_weights=not batch_first)[0]
            return y if batch_first else y.transpose(0, 1)

    torch.manual_seed(0)
    model = Head(Attention(), (5, 8), nn.Linear(8, 8))
    assert_exact(model, torch.randn(3, 5, 8), last_layer="head")


def test_attention_is_exact_where_batch_and_sequence_have_one_length():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    assert_exact(Head(layer, (3, 8)).eval(), torch.randn(3, 3, 8), last_layer="head")


def test_cross_attention_with_one_packed_weight_is_exact():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, F.relu(x), F.relu(x))[0]

    assert_exact(Head(Cross(), (5, 8), nn.Linear(8, 8)), torch.randn(3, 5, 8), last_layer="head")


class Viewed(nn.Module):
    """A network that takes `view` of its activations, which must then be in the plain layout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(4 * 25, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().view(len(x), -1))


def test_a_network_that_insists_on_the_plain_layout_gets_it():
    torch.manual_seed(0)
    assert_exact(Viewed(), torch.randn(3, 2, 5, 5))


def test_patches_are_copied_in_chunks_that_give_the_norms_of_the_whole(monkeypatch):
    geometry = convolution.Geometry((3, 2), (2, 1), (1, 0), (1, 2), 1)
    torch.manual_seed(0)
    x, g = torch.randn(7, 3, 9, 8), torch.randn(7, 4, 5, 6)
    norms = ("l1", "l2", "linf")
    expected = convolution.convolution_norms(x, g, geometry, norms, "per_example")
    x = x.to(memory_format=torch.channels_last)
    assert convolution.rows_of_channels(x, geometry)
    for budget in (1, 2000, 1 << 20):
        monkeypatch.setattr(convolution, "scratch_budget", lambda device, size=budget: size)
        found = convolution.convolution_norms(x, g, geometry, norms, "unfold_gradient")
        for norm in norms:
            torch.testing.assert_close(found[norm], expected[norm])


@pytest.mark.parametrize("contrast", [1e-2, 1e-3])
@pytest.mark.parametrize("method", ["shifted_gram", "unfold_gram", "gram"])
def test_gram_matrices_keep_the_digits_of_sums_that_cancel(method, contrast):
    """The gradient before a normalisation, of images that are next to constant."""
    torch.manual_seed(0)
    x = 1 + contrast * torch.randn(6, 8, 8, 8)
    x[2] = torch.randn(8, 8, 8)
    g = torch.randn(6, 5, 6, 6) if method != "gram" else torch.randn(6, 64, 5)
    g = g - g.mean((2, 3), keepdim=True) if method != "gram" else g - g.mean(1, keepdim=True)
    if method == "gram":
        rows = x.flatten(2).mT
        found = outer_norms(rows, g, ["l2"], method)["l2"]
        exact = torch.bmm(g.double().mT, rows.double())
    else:
        geometry = Geometry((3, 3), (1, 1), (0, 0), (1, 1), 1)
        found = convolution_norms(x, g, geometry, ["l2"], method)["l2"]
        exact = weight_gradients(x.double(), g.double(), geometry)
    exact = exact.flatten(1).square().sum(1)
    assert float(((found.double() / exact).sqrt() - 1).abs().max()) < 5e-5
