"""What a method is predicted to cost: a model of flops and bytes, never a stopwatch.

Choosing by timing makes the choice, and with it the low bits of every score, depend on the machine
and on its mood. The constants below are of classes of devices, and a choice follows from shapes and
the class alone; only the constants' ratios matter, and only for choosing between two ways to the
same number.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceClass:
    """What methods are chosen by for all devices of one kind."""

    name: str
    flops_per_s: float
    """Rate of a large matrix product."""
    bytes_per_s: float
    """Rate of passes over memory that does not fit the cache."""
    call_s: float
    """Overhead of one operator call."""
    scratch_bytes: int
    """Scratch of one chunk of examples."""
    block_bytes: int
    """The part of it that a block of explicit gradients may take."""
    chunk_calls: bool
    """Whether the calls that a chunk of examples shares count: on a device that works beside the
    processor small products are over before the next is asked for."""
    filling_flops: float
    """Products of so many operations fill the device: examples with larger ones may be looped
    over."""
    most_shared: int = 64
    """A chunk of more examples is not counted on: batches may be smaller."""


CPU = DeviceClass("cpu", 1.0e11, 1.0e10, 8.0e-6, 4 << 20, 2 << 20, False, 0.0)
"""One core's neighbourhood. Scratch should stay in the cache: bigger was measured to be slower. A
block is smaller still: forming a 9 MB gradient whole costs 4 to 6 times as much as in blocks of
2 MB (512 x 4608, 4 positions, one core), most of it for fresh pages."""

CUDA = DeviceClass("cuda", 3.0e13, 1.5e12, 5.0e-6, 256 << 20, 256 << 20, True, 2.0e9)
"""A GPU of a data centre, between a T4 and an H100 in float32: not measured by us. A chunk must be
large enough to fill it, and a product of 2 GFLOP keeps it busy for several launches."""

_CLASSES = {"cpu": CPU}


def device_class(device: str) -> DeviceClass:
    """Returns the class of a type of device; all that are no CPU are taken for GPUs.

    Args:
        device: The type, such as ``cpu`` or ``cuda``.
    """
    return _CLASSES.get(device, CUDA)


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
    """The part of ``flops_per_s`` that its products reach."""
    shared_calls: float = 8.0
    """Operator calls for each chunk of examples."""

    def seconds(self, on: DeviceClass = CPU) -> float:
        """Predicted time for one example, on a device of the class."""
        shared = 0.0
        if on.chunk_calls:
            fitting = on.scratch_bytes // max(1.0, self.scratch_bytes)
            shared = self.shared_calls / min(on.most_shared, max(1.0, fitting))
        return (
            self.flops / (on.flops_per_s * self.efficiency)
            + self.moved_bytes / on.bytes_per_s
            + (self.calls + shared) * on.call_s
        )


def cheapest(methods: list[Method], on: DeviceClass = CPU) -> Method:
    """Returns the method with the least predicted time; the first of equals."""
    return min(methods, key=lambda method: method.seconds(on))


def scratch_budget(device: str) -> int:
    """Bytes of scratch for one chunk of examples.

    Args:
        device: The type of the device, such as ``cpu`` or ``cuda``.
    """
    return device_class(device).scratch_bytes


_PASS_CALLS, _SITE_CALLS = 60, 20
"""Operator calls of a pass that scores, and of each call with a formula in it, about."""


def price_alone(flops: float, moved_bytes: float, calls: int) -> float:
    """What one image costs in a pass of its own, in images of a large batch; at least 1.

    Args:
        flops: Floating-point operations of one image.
        moved_bytes: Bytes that it reads and writes.
        calls: Calls with a formula.
    """
    image_s = flops / CPU.flops_per_s + moved_bytes / CPU.bytes_per_s
    pass_s = (_PASS_CALLS + _SITE_CALLS * calls) * CPU.call_s
    return 1.0 + pass_s / max(image_s, 1e-9)
