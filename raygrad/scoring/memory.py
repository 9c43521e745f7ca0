"""How many examples a pass may hold: from the bytes that one takes and the bytes there are."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

MAX_BATCH = 256
CPU_PASS_BYTES = 2**30
"""A pass larger than this was not measured to be faster on a CPU."""

_SHARE = 0.5
MEASURED = 16
"""Examples of the larger pass that is measured."""
_COPIES = 3
"""An activation, its gradient, and the scratch of a layer's norms, about the size of it."""


def batch_size_within(budget_bytes: int, bytes_each: int) -> int:
    """Returns the largest power of two of examples within a budget, in 1..`MAX_BATCH`."""
    fitting = max(1, min(MAX_BATCH, budget_bytes // max(1, bytes_each)))
    return 1 << (fitting.bit_length() - 1)


def batch_size_for(
    asked: int, network: nn.Module, shape: tuple[int, int, int], device: str, actors_per_gpu: int
) -> int:
    """Returns the examples of a pass: as many as were asked for, or what memory holds here.

    Args:
        asked: Examples; 0 leaves it to memory.
        network: As of `bytes_each`.
        shape: As of `bytes_each`.
        device: cpu or cuda.
        actors_per_gpu: Actors that share a GPU.
    """
    if asked:
        return asked
    return batch_size_within(pass_budget(device, actors_per_gpu), bytes_each(network, shape))


def measured_batch_size(
    run: Callable[[int], object],
    budget_bytes: int,
    most: int,
    peak: Callable[[Callable[[], object]], int] | None = None,
) -> int:
    """Returns the examples of a pass by what passes of a few have taken.

    What a pass takes grows with its examples, but for what it takes in any case: the two sizes
    tell them apart.

    Args:
        run: Runs a pass of so many examples.
        budget_bytes: The bytes that a pass may take.
        most: Examples that `run` can be given.
        peak: Runs work and returns the most bytes that it held; by default `peak_bytes`.
    """
    peak = peak_bytes if peak is None else peak
    few, more = max(1, most // 4), most
    run(few)  # what is prepared once is no pass
    small, large = peak(lambda: run(few)), peak(lambda: run(more))
    each = max(1, -(-(large - small) // max(1, more - few)))
    return batch_size_within(budget_bytes - max(0, small - few * each), each)


def peak_bytes(work: Callable[[], object]) -> int:
    """Runs work on the GPU; returns the most bytes that it held above what was held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def bytes_each(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Estimates the bytes that scoring one example takes: what all layers put out, three times.

    Args:
        network: In evaluation mode.
        shape: Channels, rows and columns of an image.
    """
    total = 4 * shape[0] * shape[1] * shape[2]

    def add(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(add) for module in leaves]
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return _COPIES * total


def pass_budget(device: str, actors_per_device: int) -> int:
    """Returns the bytes that a pass of one actor may take on this machine.

    On a CPU an actor counts on an equal share a core, and on no more than `CPU_PASS_BYTES`.
    """
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return int(_SHARE * free / actors_per_device)
    share = _SHARE * available_bytes() / max(1, os.cpu_count() or 1)
    return int(min(CPU_PASS_BYTES, share))


def available_bytes() -> int:
    """Returns the memory that can still be had: the machine's, or its control group's limit's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return max(available, 0)
