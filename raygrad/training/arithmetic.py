"""Whether a CPU has the arithmetic that a stage is asked to use."""

import logging

import torch

log = logging.getLogger("raygrad")


def warn_of_emulation(stage: str, precision: str, on_gpu: bool) -> None:
    """Says so where bfloat16 is asked of a CPU on which it is emulated: slow there, not fast.

    Asked of the driver's CPU, as workers on CPUs are mostly of its kind.
    """
    if precision == "bf16" and not on_gpu and not cpu_supports_bfloat16():
        log.warning(
            "%s: bf16 is emulated on this CPU, many times slower than float32; choose float32",
            stage,
        )


def cpu_supports_bfloat16() -> bool:
    """Returns whether torch's kernels take bfloat16 on this CPU; true where torch does not say.

    On x86 they do from AVX-512 on, with or without instructions for bfloat16.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())
