"""How exactly products are computed: one setting for float32's meaning, on any device."""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from raygrad.errors import ConfigError

Numerics = Literal["exact", "tf32", "bf16"]
NUMERICS: tuple[Numerics, ...] = ("exact", "tf32", "bf16")
"""The values of the setting."""

_TF32 = {"exact": "ieee", "tf32": "tf32", "bf16": "tf32"}
"""What torch calls each on a GPU. A bfloat16 has fewer digits than TF32 keeps, so that float32
products of what bf16 has computed lose nothing in it."""


def check_numerics(name: str) -> Numerics:
    """Returns the setting if there is one of this name.

    Raises:
        ConfigError: There is none.
    """
    for known in NUMERICS:
        if name == known:
            return known
    raise ConfigError(f"numerics must be of {NUMERICS}, got {name!r}. exact is the default.")


@contextlib.contextmanager
def numerics(name: str, device: str | torch.device = "cpu") -> Iterator[None]:
    """Computes as a setting says, and puts torch's own settings of the process back afterwards.

    - ``exact``: float32 is IEEE float32. On a GPU torch would compute convolutions in TF32 (10 bits
      of mantissa) and choose kernels that need not give the same bits twice; here they are IEEE,
      deterministic where torch has such kernels (it warns of one that it has not), and attention
      is by plain products.
    - ``tf32``: products on a GPU round to TF32, by the fastest kernels. On a CPU as ``exact``.
    - ``bf16``: as ``tf32``; and what `autocast` encloses is computed in bfloat16.

    Args:
        name: One of `NUMERICS`.
        device: Where is computed; a CPU's products are IEEE in each.

    Raises:
        ConfigError: There is no such setting; or something that ran inside has changed torch's
            settings, so that what was computed is not what was asked for.
    """
    kind, on_gpu = check_numerics(name), torch.device(device).type == "cuda"
    before, wanted = _state(), _wanted(kind, on_gpu)
    older = {
        "matmul": "highest" if kind == "exact" else "high",
        "cudnn.allow_tf32": kind != "exact",
    }
    if on_gpu and kind == "exact":
        # Read when the library starts: without it its products may differ from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    is_set = all(before[key] == value for key, value in (wanted | older).items())
    if not is_set:
        _set_older(older)
        _set(wanted)
    try:
        yield
        now = _state()
        changed = [key for key, value in wanted.items() if now[key] != value]
        if changed:
            raise ConfigError(
                f"numerics must stay {kind} while it is computed, got {changed[0]} = "
                f"{now[changed[0]]!r}, set by the network's code or a library that it calls. "
                "Take it out there, or choose other numerics."
            )
    finally:
        if not is_set:
            _set_older(before)
            _set({key: value for key, value in before.items() if key not in older})


@contextlib.contextmanager
def autocast(name: str, device: str | torch.device) -> Iterator[None]:
    """Computes forward passes' products in bfloat16 under ``bf16``, and changes nothing else.

    Raises:
        ConfigError: There is no such setting.
    """
    kind, is_rough = torch.device(device).type, check_numerics(name) == "bf16"
    with torch.autocast(kind, torch.bfloat16, enabled=is_rough):
        if is_rough and kind == "cpu":
            with _WideStridesExact():
                yield
        else:
            yield


class _WideStridesExact(TorchFunctionMode):
    """Computes convolutions in float32 whose stride is larger than what they read is wide.

    Of these the gradient of the weights is made of memory that nobody has written (torch 2.14, on
    CPUs with instructions for bfloat16): NaN, or 1e14. They are steps of a network for large images
    that is given small ones.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _CONVOLUTIONS:
            given = dict(zip(_CONVOLUTION, args, strict=False)) | (kwargs or {})
            if _strides_widely(given["input"], given.get("stride", 1)):
                exact = {k: v.float() if torch.is_tensor(v) else v for k, v in given.items()}
                with torch.autocast("cpu", enabled=False):
                    return func(**exact)
        return func(*args, **(kwargs or {}))


_CONVOLUTIONS = frozenset((torch.conv1d, torch.conv2d, torch.conv3d))
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _strides_widely(images: torch.Tensor, stride: int | tuple[int, ...]) -> bool:
    sizes = images.shape[2:]
    strides = (stride,) * len(sizes) if isinstance(stride, int) else tuple(stride)
    return any(step > size for step, size in zip(strides, sizes, strict=False))


def computed_by(name: str, device: str | torch.device) -> dict[str, str]:
    """Returns what is recorded beside numbers: numerics, the device's name, torch's version."""
    return {"numerics": name, "device": device_name(device), "torch": str(torch.__version__)}


def device_name(device: str | torch.device) -> str:
    """Returns the name of a GPU or of this machine's processor."""
    at = torch.device(device)
    if at.type == "cuda":
        return torch.cuda.get_device_name(at)
    if at.type != "cpu":
        return str(at)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _wanted(kind: Numerics, on_gpu: bool) -> dict[str, Any]:
    """What torch's settings are to be."""
    wanted: dict[str, Any] = {
        "cuda.matmul.fp32_precision": _TF32[kind],
        "cudnn.conv.fp32_precision": _TF32[kind],
        "cudnn.rnn.fp32_precision": _TF32[kind],
        "cudnn.deterministic": kind == "exact",
        "cudnn.benchmark": False,
        **{f"mkldnn.{part}.fp32_precision": "ieee" for part in ("matmul", "conv", "rnn")},
    }
    if on_gpu and kind == "exact":
        # On CPUs these change kernels that are exact and deterministic already.
        wanted |= {
            "deterministic": (True, True),
            "fill_uninitialized_memory": False,
            **dict.fromkeys(("sdp.flash", "sdp.mem_efficient", "sdp.cudnn"), False),
            "sdp.math": True,
        }
    return wanted


_PRECISIONS = {
    f"{backend}.{part}.fp32_precision": (backend, part)
    for backend, parts in (
        ("cuda", ("matmul",)),
        ("cudnn", ("conv", "rnn")),
        ("mkldnn", ("matmul", "conv", "rnn")),
    )
    for part in parts
}


def _state() -> dict[str, Any]:
    """The settings that `numerics` changes, by name."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    found: dict[str, Any] = {
        name: getattr(getattr(torch.backends, backend), part).fp32_precision
        for name, (backend, part) in _PRECISIONS.items()
    }
    older: tuple[tuple[str, Callable[[], object], str, tuple[object, object]], ...] = (
        ("matmul", torch.get_float32_matmul_precision, "cuda.matmul", ("high", "highest")),
        ("cudnn.allow_tf32", lambda: cudnn.allow_tf32, "cudnn.conv", (True, False)),
    )
    for name, read, newer, otherwise in older:
        try:
            found[name] = read()
        except RuntimeError:
            # Torch does not answer where its older settings say otherwise than its newer ones.
            found[name] = otherwise[found[f"{newer}.fp32_precision"] == "tf32"]
    return found | {
        "cudnn.deterministic": cudnn.deterministic,
        "cudnn.benchmark": cudnn.benchmark,
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "fill_uninitialized_memory": _filling().fill_uninitialized_memory,
        "sdp.flash": cuda.flash_sdp_enabled(),
        "sdp.mem_efficient": cuda.mem_efficient_sdp_enabled(),
        "sdp.cudnn": cuda.cudnn_sdp_enabled(),
        "sdp.math": cuda.math_sdp_enabled(),
    }


def rounds_products(device: str | torch.device) -> bool:
    """Whether torch rounds float32's products on a device to fewer digits, as it is set now."""
    backends = {"cuda": ("cuda", "cudnn"), "cpu": ("mkldnn",)}.get(torch.device(device).type, ())
    values = (
        getattr(getattr(torch.backends, backend), part).fp32_precision
        for backend, part in _PRECISIONS.values()
        if backend in backends
    )
    return any(value in ("tf32", "bf16") for value in values)


def _set(values: dict[str, Any]) -> None:
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    now = _state()
    for name, value in values.items():
        if now[name] == value:
            continue
        if name in _PRECISIONS:
            backend, part = _PRECISIONS[name]
            getattr(getattr(torch.backends, backend), part).fp32_precision = value
        elif name == "cudnn.deterministic":
            cudnn.deterministic = value
        elif name == "cudnn.benchmark":
            cudnn.benchmark = value
        elif name == "deterministic":
            torch.use_deterministic_algorithms(value[0], warn_only=value[1])
        elif name == "fill_uninitialized_memory":
            _filling().fill_uninitialized_memory = value
        else:
            {
                "sdp.flash": cuda.enable_flash_sdp,
                "sdp.mem_efficient": cuda.enable_mem_efficient_sdp,
                "sdp.cudnn": cuda.enable_cudnn_sdp,
                "sdp.math": cuda.enable_math_sdp,
            }[name](value)


def _filling() -> Any:
    """Holds the setting that fills new memory under deterministic algorithms, which costs time."""
    return torch.utils.deterministic


def _set_older(values: dict[str, Any]) -> None:
    """Sets torch's older names of two settings: libraries that read them get an answer."""
    torch.set_float32_matmul_precision(values["matmul"])
    torch.backends.cudnn.allow_tf32 = values["cudnn.allow_tf32"]
