"""What a method is predicted to cost: a model of flops and bytes, never a stopwatch.

Choosing by timing makes the choice, and with it the low bits of every score, depend on the machine
and on its mood. The constants below are those of one CPU core's neighbourhood; only their ratios
matter, and only for choosing between two ways to the same number.
"""

from dataclasses import dataclass

FLOPS_PER_S = 1.0e11
"""Rate of a large matrix product."""

BYTES_PER_S = 1.0e10
"""Rate of passes over memory that does not fit the cache."""

CALL_S = 8.0e-6
"""Overhead of one operator call."""


@dataclass(frozen=True)
class Method:
    """One way to a layer's norms, with its predicted cost for one example."""

    name: str
    flops: float
    """Floating-point operations."""
    moved_bytes: float = 0.0
    """Bytes read and written beside the matrix products."""
    scratch_bytes: float = 0.0
    """Working memory; several examples share a chunk of it."""
    calls: float = 0.0
    """Operator calls for each example (a loop over examples pays them for every one)."""
    efficiency: float = 1.0
    """The part of ``FLOPS_PER_S`` that its products reach."""

    @property
    def seconds(self) -> float:
        """Predicted time for one example, on the machine of the constants."""
        return (
            self.flops / (FLOPS_PER_S * self.efficiency)
            + self.moved_bytes / BYTES_PER_S
            + self.calls * CALL_S
        )


def cheapest(methods: list[Method]) -> Method:
    """Returns the method with the least predicted time; the first of equals."""
    return min(methods, key=lambda method: method.seconds)


def scratch_budget(device: str) -> int:
    """Bytes of scratch for one chunk of examples.

    On a CPU it should stay in the cache (bigger was measured to be slower); on a GPU the chunk
    must be large enough to fill the device.

    Args:
        device: The type of the device, such as ``cpu`` or ``cuda``.
    """
    return 4 << 20 if device == "cpu" else 256 << 20
