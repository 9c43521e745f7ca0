"""What the ranks of a process group do together; alone in a process, nothing."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """Returns this process's rank, 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns how many ranks there are, 1 where this process is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(totals: Tensor) -> Tensor:
    """Returns the sum of every rank's tensor, on the device that it came on."""
    if not dist.is_initialized():
        return totals
    summed = totals.to(_device(), copy=True)
    dist.all_reduce(summed)
    return summed.to(totals.device)


def gathered(mine: Tensor) -> list[Tensor]:
    """Returns the tensors of all ranks, of one shape and type, in the order of ranks."""
    if not dist.is_initialized():
        return [mine]
    sent = mine.to(_device())
    received = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(received, sent)
    return [tensor.to(mine.device) for tensor in received]


def gathered_numbers(mine: int) -> list[int]:
    """Returns the whole numbers of all ranks, in the order of ranks."""
    return [int(one) for one in gathered(torch.tensor([mine]))]


def largest(values: Sequence[float]) -> list[int]:
    """Returns the largest of all ranks' whole numbers or truths, one by one, on every rank."""
    if not dist.is_initialized():
        return [int(value) for value in values]
    numbers = torch.tensor([int(value) for value in values], device=_device())
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return [int(value) for value in numbers.tolist()]


def share_buffers(network: nn.Module) -> None:
    """Gives every rank the first one's buffers, such as the statistics of batch norm."""
    if dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def _device() -> torch.device:
    """The device that the group's backend can send from."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
