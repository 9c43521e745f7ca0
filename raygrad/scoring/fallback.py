"""Per-example gradients where no formula is known: vmap over examples, or a loop of them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from raygrad.scoring.cost import scratch_budget
from raygrad.scoring.reductions import Partial, concatenate, reduce_gradient
from raygrad.scoring.swapping import functional_call

_CHUNK = 16
"""How many times a chunk's scratch may exceed the cache: vmap pays a high price for every chunk."""


def fallback_norms(
    model: nn.Module,
    images: Tensor,
    cotangent: Tensor,
    parameters: Mapping[str, Tensor],
    needed: Mapping[str, frozenset[str]],
    method: str,
) -> dict[str, Partial]:
    """Partial norms of the per-example gradients of some parameters, by ordinary means.

    Args:
        model: The classifier.
        images: ``[B, ...]``.
        cotangent: The gradient at the logits, ``[B, C]``.
        parameters: All parameters by name, detached.
        needed: The norms for each parameter to compute.
        method: ``vmap`` or ``loop``.

    Returns:
        Partial norms ``[B]`` by parameter.
    """
    chosen = {name: parameters[name] for name in needed}
    fixed = {name: tensor for name, tensor in parameters.items() if name not in chosen}
    size = sum(tensor.numel() for tensor in chosen.values())
    budget = _CHUNK * scratch_budget(images.device.type)
    step = 1 if method == "loop" else max(1, min(64, budget // (4 * size)))
    chunks: dict[str, list[Partial]] = {name: [] for name in needed}
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        run = _loop if method == "loop" else _vmap
        found = run(model, images[rows], cotangent[rows], chosen, fixed)
        for name, norms in needed.items():
            chunks[name].append(reduce_gradient(found[name], norms))
    return {name: concatenate(rows) for name, rows in chunks.items()}


def _vmap(
    model: nn.Module,
    images: Tensor,
    cotangent: Tensor,
    chosen: dict[str, Tensor],
    fixed: dict[str, Tensor],
) -> dict[str, Tensor]:
    def projected(free: dict[str, Tensor], image: Tensor, direction: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, {**fixed, **free}, (image[None],))
        return (logits[0] * direction.to(logits.dtype)).sum()

    found: dict[str, Tensor] = vmap(grad(projected), in_dims=(None, 0, 0))(
        chosen, images, cotangent
    )
    return {name: gradient.contiguous() for name, gradient in found.items()}


def _loop(
    model: nn.Module,
    images: Tensor,
    cotangent: Tensor,
    chosen: dict[str, Tensor],
    fixed: dict[str, Tensor],
) -> dict[str, Tensor]:
    found = single_gradients(model, images, cotangent, chosen, fixed)
    return {
        name: torch.zeros_like(chosen[name])[None] if gradient is None else gradient[None]
        for name, gradient in found.items()
    }


def single_gradients(
    model: nn.Module,
    image: Tensor,
    cotangent: Tensor,
    chosen: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
) -> dict[str, Tensor | None]:
    """Gradients of one example by ordinary autograd; None for what the logits do not depend on.

    Args:
        model: The classifier.
        image: ``[1, ...]``.
        cotangent: The gradient at the logits, ``[1, C]``.
        chosen: The parameters to differentiate by, by name.
        fixed: The others.
    """
    free = {name: tensor.detach().requires_grad_() for name, tensor in chosen.items()}
    with torch.enable_grad():
        logits = functional_call(model, {**fixed, **free}, (image,))
    if not logits.requires_grad:
        return dict.fromkeys(free)
    with torch.autocast(image.device.type, enabled=False):
        found = torch.autograd.grad(
            logits, list(free.values()), cotangent.to(logits.dtype), allow_unused=True
        )
    return dict(zip(free, found, strict=True))
