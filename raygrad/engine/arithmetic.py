"""Whether a CPU has the arithmetic that a stage is asked to use."""

import logging

import torch

log = logging.getLogger("raygrad")


def warn_of_emulation(stage: str, precision: str, on_gpu: bool) -> None:
    """Says so where bfloat16 is asked of a CPU that has none: it is slow there, not fast.

    Asked of the driver's CPU, as workers on CPUs are mostly of its kind.
    """
    if precision == "bf16" and not on_gpu and not cpu_has_bfloat16():
        log.warning(
            "%s: bf16 is emulated on this CPU, which has no bfloat16 arithmetic, and many times "
            "slower than float32; choose float32",
            stage,
        )


def cpu_has_bfloat16() -> bool:
    """Returns whether this CPU computes in bfloat16 by itself; true where torch does not say."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())
