"""What a GPU will be asked to do, seen without one: where, how often, and never for a value."""

import math
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from raygrad.errors import ConfigError, DataError
from raygrad.scoring import GradNormScorer, example_scores
from raygrad.scoring.audit import Audit
from raygrad.scoring.convolution import Geometry, convolution_methods, copied_patches, unfold
from raygrad.scoring.cost import CPU, CUDA, cheapest
from raygrad.scoring.losses import CrossEntropy
from raygrad.scoring.own_loss import find_loss
from raygrad.scoring.verdicts import Verdicts
from raygrad.training.models import ImageSpec
from raygrad.training.networks import NETWORKS
from tests.scoring.comparing import assert_exact, batch, small_cnn
from tests.scoring.fake_device import (
    chosen_for_a_gpu,
    prepared,
    skip_on_older_torch,
    steady_pass,
    walked,
)

COLUMNS = ("grad_l1_all", "grad_l2_weights", "grad_linf_biases")


def vit(side, patch, depth, width, heads):
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(side, patch, depth, heads, width, 4 * width)


def named(name):
    return partial(torchvision.models.get_model, name, weights=None)


SMALL = {
    "cnn5": (lambda: NETWORKS["cnn5"](ImageSpec(3, 32, 32, 10)), (3, 32, 32)),
    "small vit": (partial(vit, 16, 8, 2, 32, 2), (3, 16, 16)),
}
TEN = {
    "vgg16": (named("vgg16"), (3, 64, 64)),
    "alexnet": (named("alexnet"), (3, 64, 64)),
    "resnet18": (named("resnet18"), (3, 64, 64)),
    "resnet50": (named("resnet50"), (3, 64, 64)),
    "resnext50": (named("resnext50_32x4d"), (3, 64, 64)),
    "densenet121": (named("densenet121"), (3, 64, 64)),
    "mobilenet_v2": (named("mobilenet_v2"), (3, 64, 64)),
    "efficientnet_b0": (named("efficientnet_b0"), (3, 64, 64)),
    "convnext_tiny": (named("convnext_tiny"), (3, 64, 64)),
    "vit_s_16": (partial(vit, 64, 16, 12, 384, 6), (3, 64, 64)),
}


def num_layers(model):
    """Modules that have parameters of their own."""
    return sum(bool(list(module.parameters(recurse=False))) for module in model.modules())


def assert_runs_without_waiting(case, monkeypatch):
    """A steady pass asks for no value, and makes as many calls for one image as for many."""
    make, shape = case
    scorer = prepared(make, shape, COLUMNS, monkeypatch)
    later, totals = Verdicts(), []
    for examples in (4, 16):
        found, calls = steady_pass(scorer, shape, examples, later, monkeypatch)
        assert {norms.device.type for norms in found.norms.values()} == {"cuda"}
        assert found.norms[COLUMNS[0]].shape == (examples,)
        totals.append(calls.total)
    assert totals[0] == totals[1], "but for chunks of memory, which are not needed here"
    assert len(later) == 2, "labels of either batch"
    steady_pass(scorer, shape, 8, later, monkeypatch, audit=True)
    assert len(later) == 6, "and an audit: labels of the batch and of the one, logits, norms"


@pytest.mark.parametrize("name", SMALL)
def test_a_steady_pass_on_a_gpu_never_waits_for_it(name, monkeypatch):
    assert_runs_without_waiting(SMALL[name], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEN)
def test_ten_networks_never_wait_for_a_gpu(name, monkeypatch):
    assert_runs_without_waiting(TEN[name], monkeypatch)


def test_a_loss_of_ones_own_never_waits_and_is_judged_by_who_reads(monkeypatch):
    """Nor do class weights, which are copied to the device once."""
    skip_on_older_torch()
    with monkeypatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(torch.autograd, "grad", walked)
        logits = torch.empty(6, 4, device="cuda")
        labels = torch.zeros(6, dtype=torch.int64, device="cuda")
        later = Verdicts()
        summed = partial(nn.functional.cross_entropy, reduction="sum", label_smoothing=0.1)
        found = find_loss(summed).gradient(logits, labels, later)
        assert (found.shape, found.device.type, len(later)) == ((6, 4), "cuda", 10)
        weighted = CrossEntropy(class_weights=(1.0, 2.0, 3.0, 4.0))
        assert weighted._weights(logits) is weighted._weights(logits)
        with pytest.raises(Exception, match=r"_local_scalar_dense"):
            find_loss(summed).gradient(logits, labels)
    for wrong, message in (
        (nn.functional.cross_entropy, "It is a mean over the batch"),
        (lambda z, y: z.softmax(1)[:, 0].sub(z.softmax(1)[:, 0]).sqrt(), "must be finite, got"),
        (lambda z, y: z.sum(1).sub(1e400), "must be finite at finite logits, got -inf"),
    ):
        loss, logits, labels = find_loss(wrong), torch.randn(6, 4), torch.zeros(6).long()
        with pytest.raises(ConfigError, match=message):
            loss.gradient(logits, labels)
        later = Verdicts()
        loss.gradient(logits, labels, later)
        with pytest.raises(ConfigError, match=message):
            later.read()


def test_a_pass_that_checks_at_once_waits():
    """So that the tests above would see it: without `later` labels are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        scorer = prepared(*SMALL["cnn5"], COLUMNS, patch)
        with pytest.raises(Exception, match=r"_local_scalar_dense"):
            steady_pass(scorer, (3, 32, 32), 4, None, patch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [named("resnet50"), named("densenet121"), partial(vit, 224, 16, 12, 384, 6)],
    ids=["resnet50", "densenet121", "vit_s_16"],
)  # fmt: skip
def test_a_layer_takes_at_most_forty_calls_of_a_gpu(make, monkeypatch):
    """At 224 pixels and batch 64; four times as many images take more chunks, not more calls."""
    shape, columns = (3, 224, 224), ("grad_l2_weights",)
    scorer = prepared(make, shape, columns, monkeypatch)
    totals = {}
    for examples in (16, 64, 256):
        _, calls = steady_pass(scorer, shape, examples, Verdicts(), monkeypatch)
        totals[examples] = calls.total
    layers = num_layers(scorer._model)
    print({examples: total / layers for examples, total in totals.items()})
    assert totals[64] <= 40 * layers
    assert totals[16] <= totals[64] <= totals[256] < 4 * totals[64]


def test_no_convolution_of_a_gpu_is_a_loop_unless_one_example_fills_it():
    """For 2,000 geometries; where a loop is chosen one example is 2 GFLOP or more."""
    generator = torch.Generator().manual_seed(0)

    def one_of(*values):
        return values[int(torch.randint(len(values), (), generator=generator))]

    looped = 0
    for _ in range(2000):
        inputs, outputs = one_of(3, 16, 64, 256, 512), one_of(16, 64, 256, 512)
        side, kernel = one_of(7, 14, 28, 56, 112, 224), one_of(1, 3, 5, 7)
        geometry = Geometry((kernel,) * 2, (1, 1), (kernel // 2,) * 2, (1, 1), 1)
        shapes = torch.Size((1, inputs, side, side)), torch.Size((1, outputs, side, side))
        norms = one_of({"l2"}, {"l1"}, {"l1", "l2", "linf"})
        chosen = cheapest(convolution_methods(*shapes, geometry, norms, on=CUDA), CUDA)
        flops = 2 * side**2 * inputs * outputs * kernel**2
        assert chosen.name != "per_example" or flops >= 2e9
        looped += chosen.name == "per_example"
        known = {m.name for m in convolution_methods(*shapes, geometry, norms, on=CPU)}
        assert chosen.name in known, "the same methods, chosen otherwise"
    assert looped, "some do"


LAYERS = {
    "plain": nn.Conv2d(3, 6, 3, padding=1),
    "strided": nn.Conv2d(3, 6, (2, 3), stride=(2, 1), padding=(1, 0)),
    "dilated": nn.Conv2d(3, 6, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(3, 6, 3, groups=3),
    "pointwise": nn.Conv2d(3, 6, 1),
    "in a row": nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 6, 5, padding=2)),
    "cubes": nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 6, 3, padding=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scratch_bytes", [CUDA.scratch_bytes, 4096])
def test_norms_by_a_gpus_methods_are_those_of_single_examples(name, scratch_bytes, monkeypatch):
    """On the CPU, by the methods that are chosen for a GPU, in one chunk and in many."""
    torch.manual_seed(0)
    layer = LAYERS[name]
    # What it was made with is different in every run: now and then a lone hidden unit comes so near
    # zero that float32 itself misses the bound.
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    width = layer(torch.zeros(1, 3, 8, 8)).flatten(1).shape[1]
    model = nn.Sequential(
        layer, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, 4)
    ).eval()
    changes = {"scratch_bytes": scratch_bytes, "block_bytes": scratch_bytes}
    with chosen_for_a_gpu(monkeypatch, **changes):
        scorer = assert_exact(model, batch(5)[0], last_layer="5")
        assert "per_example" not in scorer.explain(batch(2)[0])


@pytest.mark.parametrize("filling", [0.0, math.inf], ids=["loops", "no loops"])
def test_batch_norm_and_sequences_too(filling, monkeypatch):
    with chosen_for_a_gpu(monkeypatch, filling_flops=filling):
        assert_exact(small_cnn(), batch(5)[0], last_layer="10")
        model = vit(16, 8, 1, 16, 2)
        nn.init.normal_(model.heads.head.weight)
        assert_exact(model.eval(), batch(3, 3, 16, 16)[0], last_layer="heads.head", tolerance=3e-5)


def test_patches_by_one_copy_are_those_of_torch():
    x = torch.randn(2, 6, 7, 9)
    for geometry in (
        Geometry((3, 2), (1, 2), (1, 0), (2, 1), 1),
        Geometry((1, 3), (2, 1), (0, 2), (1, 2), 3),
    ):
        assert torch.equal(copied_patches(x, geometry), unfold(x, geometry))


def test_a_wrong_label_is_told_when_the_checks_are_read():
    """No index goes out of range meanwhile: a GPU would be lost to the process."""
    images, labels = batch(5)
    labels[3] = 9
    scorer, later = GradNormScorer(small_cnn()), Verdicts()
    scorer.score(images, labels.clamp(max=3))
    logits = scorer.score(images, labels, later=later).logits
    example_scores(logits, labels, later=later)
    for _ in range(2):
        with pytest.raises(DataError, match=r"labels must be classes 0\.\.3, got 9"):
            later.read()
        example_scores(logits, labels, later=later)
    with pytest.raises(DataError):
        later.read()
    later.read()


def test_an_audit_that_disagrees_is_told_when_the_checks_are_read():
    later, audit = Verdicts(), Audit(count=1)
    logits, norms = torch.ones(4, 3), {"grad_l2_all": torch.ones(4)}
    alone = {"grad_l2_all": torch.tensor([2.0])}
    assert audit.agrees(norms, logits, alone, logits[:1], 2, later)
    with pytest.raises(ConfigError, match="a grad_l2_all of 1 in a batch of 4, and of 2 alone"):
        later.read()
    assert audit.agrees(norms, logits, norms, 2 * logits[:1], 2, later)
    with pytest.raises(ConfigError, match="no example's logits may depend"):
        later.read()
