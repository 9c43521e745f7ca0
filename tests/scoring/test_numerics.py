"""What `exact`, `tf32` and `bf16` set in torch, and that nothing of it stays behind."""

import pytest
import torch
from torch import nn

from raygrad.errors import ConfigError
from raygrad.scoring import numerics as settings
from raygrad.scoring.numerics import NUMERICS, autocast, computed_by, numerics, rounds_products

cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.mark.parametrize(
    ("name", "precision", "deterministic"),
    [("exact", "ieee", True), ("tf32", "tf32", False), ("bf16", "tf32", False)],
)
def test_a_setting_is_set_in_all_of_torchs_places(name, precision, deterministic):
    """By its newer names and by its older ones, which libraries read."""
    with numerics(name):
        found = {matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision}
        assert found == {precision}
        assert matmul.allow_tf32 == cudnn.allow_tf32 == (name != "exact")
        assert torch.get_float32_matmul_precision() == ("highest" if name == "exact" else "high")
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert (cudnn.deterministic, cudnn.benchmark) == (deterministic, False)


def test_on_a_gpu_exact_is_deterministic_in_all_that_torch_computes():
    """Elsewhere it would change kernels of the CPU, which are exact and deterministic already."""
    with numerics("exact", "cuda"):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()
    with numerics("exact", "cpu"):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture(params=["as torch has it", "medium", "older", "newer"])
def own_settings(request):
    """Settings of the process's own, in whatever way they were made."""
    before = settings._state()
    if request.param == "medium":
        torch.set_float32_matmul_precision("medium")
    elif request.param == "older":
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = False, True, True
    elif request.param == "newer":
        matmul.fp32_precision, cudnn.conv.fp32_precision = "tf32", "ieee"
    yield
    settings._set_older({"matmul": "highest", "cudnn.allow_tf32": True})
    settings._set({k: v for k, v in before.items() if k not in ("matmul", "cudnn.allow_tf32")})


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_processs_own_settings_come_back(own_settings, device):
    before = settings._state()
    for name in NUMERICS:
        with numerics(name, device), numerics("exact", device):
            pass
        assert settings._state() == before
    with pytest.raises(ZeroDivisionError), numerics("exact", device):
        raise ZeroDivisionError
    assert settings._state() == before


def test_what_changes_them_inside_is_refused_and_put_back():
    """A network's code, or a library that it calls: the numbers are not what was asked for."""
    before = settings._state()
    changed = r"must stay exact while .* cudnn\.conv\.fp32_precision"
    with pytest.raises(ConfigError, match=changed), numerics("exact"), numerics("exact"):
        cudnn.allow_tf32 = True
    assert settings._state() == before


def test_exact_products_on_a_cpu_are_float32_whatever_the_process_has_set(own_settings):
    """`torch.set_float32_matmul_precision("medium")` rounds products of CPUs to bfloat16."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 64, 64, generator=generator)
    with numerics("exact"):
        error = (nn.functional.linear(a, b) - a.double() @ b.double().T).abs().max()
    assert error < 1e-4


def test_bf16_alone_is_autocast():
    for name in NUMERICS:
        with autocast(name, "cpu"):
            found = torch.ones(2, 2) @ torch.ones(2, 2)
        assert found.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)


def test_another_name_is_refused():
    wrong = pytest.raises(ConfigError, match=r"numerics must be of .*, got 'float32'")
    with wrong, numerics("float32"):
        pass


def test_what_computed_is_named():
    found = computed_by("tf32", "cpu")
    assert (found["numerics"], found["torch"]) == ("tf32", torch.__version__)
    assert found["device"]
    assert {type(value) for value in found.values()} == {str}, "plain values, as files keep them"


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 1), (3, 3, 2), (5, 4, 3), (2, 2, 1)])
def test_the_weights_gradient_of_a_stride_wider_than_the_image_is_of_its_images(
    kernel, stride, size
):
    """In bfloat16 it was made of memory that nobody had written, on CPUs that compute it."""
    torch.manual_seed(0)
    images = torch.randn(4, 64, size, size)
    layer = torch.nn.Conv2d(64, 64, kernel, stride, kernel // 2, bias=False)
    layer(images).sum().backward()
    exact, layer.weight.grad = layer.weight.grad, None
    for _ in range(8):
        dirt = [torch.full((1 << size,), 1e30) for size in range(6, 20)]
        del dirt  # what is allocated next lies here
        with autocast("bf16", "cpu"):
            layer(images).sum().backward()
        torch.testing.assert_close(layer.weight.grad, exact, rtol=0.05, atol=0.05)
        layer.weight.grad = None


def test_what_torch_is_set_to_round_is_known():
    """In whatever way it was set, and for the device that is asked for alone."""
    assert not rounds_products("cpu")
    with numerics("exact", "cpu"):
        assert not rounds_products("cuda")
        assert not rounds_products("cpu")
    with numerics("tf32", "cpu"):
        assert rounds_products("cuda")
        assert not rounds_products("cpu")
