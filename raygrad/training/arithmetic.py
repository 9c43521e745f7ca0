"""Whether a CPU has the arithmetic that a stage is asked to use."""

import logging

import torch

log = logging.getLogger("raygrad")


def tell_arithmetic(stage: str, numerics: str, on_gpu: bool) -> None:
    """Says what a setting of numerics costs or does not do on the device that is used.

    Of bfloat16 the driver's CPU is asked, as workers on CPUs are mostly of its kind.
    """
    if numerics == "bf16" and not on_gpu and not cpu_supports_bfloat16():
        log.warning(
            "%s: bf16 is emulated on this CPU, many times slower than float32; choose exact", stage
        )
    elif numerics == "tf32" and not on_gpu:
        log.info("%s: tf32 is arithmetic of GPUs; on CPUs it is float32, as exact", stage)
    elif numerics == "exact" and on_gpu:
        log.info(
            "%s: exact float32 with deterministic kernels; tf32 and bf16 are faster on a GPU", stage
        )


def cpu_supports_bfloat16() -> bool:
    """Returns whether torch's kernels take bfloat16 on this CPU; true where torch does not say.

    On x86 they do from AVX-512 on, with or without instructions for bfloat16.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())
