"""The two images that a model is tried on: real and different, wherever the batch has such."""

import torch
from torch import Tensor


def probe_pair(images: Tensor) -> Tensor:
    """Chooses two examples that differ, so that what one does to the other can be seen.

    The first is the example with the widest spread of values, the second the one that differs
    most from it. Where the batch has no two different finite examples, the missing ones are made
    of the values that are there: in another order, and in another range.

    Args:
        images: ``[B, ...]``.

    Returns:
        ``[2, ...]`` in the layout of the images.
    """
    rows = images.reshape(len(images), -1)
    values = torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows
    values = values.float()
    finite = values.isfinite().all(1).nonzero()[:, 0]
    if len(finite) == 0 or values.shape[1] == 0:
        first = _made(torch.zeros_like(images[:1]), 0)
        return _laid_out(torch.cat([first, _made(first, 1)]), images)
    values = values[finite]
    spread = values.amax(1) - values.amin(1)
    at = int(spread.argmax())
    if float(spread[at]) == 0:
        # Only blank images: no row order can be told from another in them.
        first = _made(images[finite[at]][None], 0)
        return _laid_out(torch.cat([first, _made(first, 1)]), images)
    distance = (values - values[at]).abs().sum(1)
    other = int(distance.argmax())
    first = images[finite[at]][None]
    scale = float(values[at].abs().sum())
    different = float(distance[other]) > 1e-3 * scale and float(spread[other]) > 0
    second = images[finite[other]][None] if different else _made(first, 1)
    return _laid_out(torch.cat([first, second]), images)


def _made(image: Tensor, seed: int) -> Tensor:
    """An image that is not this one: its values in another order, half as large and shifted."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(image.numel(), generator=generator).to(image.device)
    mixed = image.reshape(-1)[order].reshape(image.shape)
    if image.dtype == torch.uint8:
        noise = torch.randint(0, 128, image.shape, generator=generator, dtype=torch.uint8)
        return mixed // 2 + noise.to(image.device)
    if not image.is_floating_point():
        # Indices must stay indices: only their order may change.
        return mixed
    size = float(image.detach().abs().amax().clamp(min=1e-3)) if image.numel() else 1.0
    size = size if size > 1e-3 else 1.0
    noise = torch.rand(image.shape, generator=generator).to(image.device, image.dtype)
    return 0.5 * mixed + 0.5 * size * noise


def _laid_out(pair: Tensor, images: Tensor) -> Tensor:
    if images.ndim == 4 and is_channels_last(images):
        return pair.contiguous(memory_format=torch.channels_last)
    return pair.contiguous()


def is_channels_last(images: Tensor) -> bool:
    """Whether images are in the channels-last layout, and not in the plain one as well."""
    return (
        images.ndim == 4
        and images.is_contiguous(memory_format=torch.channels_last)
        and not images.is_contiguous()
    )
