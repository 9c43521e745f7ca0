"""What the ranks of a process group do together; alone in a process, nothing."""

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


def agreed(decision: bool) -> bool:
    """Returns the first rank's decision, on every rank."""
    if not dist.is_initialized():
        return decision
    flag = torch.tensor([decision], dtype=torch.uint8, device=_device())
    dist.broadcast(flag, 0)
    return bool(flag.item())


def share_buffers(network: nn.Module) -> None:
    """Gives every rank the first one's buffers, such as the statistics of batch norm."""
    if dist.is_initialized():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def _device() -> torch.device:
    """The device that the group's backend can send from."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
