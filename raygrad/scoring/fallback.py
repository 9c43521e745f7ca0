"""Per-example gradients where no formula is known: vmap over examples, or a loop of them."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from raygrad.scoring.cost import scratch_budget
from raygrad.scoring.graph import leaves_of
from raygrad.scoring.pulling import pull_back
from raygrad.scoring.reductions import Partial, concatenate, owned, reduce_gradient
from raygrad.scoring.running import Runner
from raygrad.scoring.strays import passing_for, refuse_kept, stand_in

_CHUNK = 16
"""How many times a chunk's scratch may exceed the cache: vmap pays a high price for every chunk."""

_MOST_BYTES = 1 << 30
"""Where there is no cache that it should fit."""


def fallback_norms(
    runner: Runner,
    images: Tensor,
    cotangent: Tensor,
    parameters: Mapping[str, Tensor],
    needed: Mapping[str, frozenset[str]],
    method: str,
) -> dict[str, Partial]:
    """Partial norms of the per-example gradients of some parameters, by ordinary means.

    Args:
        runner: How the classifier is run.
        images: ``[B, ...]``.
        cotangent: The gradient at the logits, ``[B, C]``.
        parameters: All parameters by name, detached.
        needed: The norms for each parameter to compute.
        method: ``vmap``, ``loop``, or ``single``: a loop that never runs an image beside its copy.

    Returns:
        Partial norms ``[B]`` by parameter.
    """
    size = sum(parameters[name].numel() for name in needed)
    budget = min(_MOST_BYTES, _CHUNK * scratch_budget(images.device.type))
    step = max(1, min(64, budget // max(1, 4 * size))) if method == "vmap" else 1
    chunks: dict[str, list[Partial]] = {name: [] for name in needed}
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        if method == "vmap":
            found = _vmap(runner, images[rows], cotangent[rows], parameters, set(needed))
        else:
            beside = int(method == "loop")
            one = single_gradients(
                runner, images[rows], cotangent[rows], parameters, needed, beside
            )
            found = {
                name: torch.zeros_like(parameters[name])[None] if row is None else row[None]
                for name, row in one.items()
            }
        found = owned(found)
        for name, norms in needed.items():
            chunks[name].append(reduce_gradient(found[name], norms))
    return {name: concatenate(rows) for name, rows in chunks.items()}


def _vmap(
    runner: Runner,
    images: Tensor,
    cotangent: Tensor,
    parameters: Mapping[str, Tensor],
    chosen: set[str],
) -> dict[str, Tensor]:
    fixed = {name: tensor for name, tensor in parameters.items() if name not in chosen}

    def projected(free: dict[str, Tensor], image: Tensor, direction: Tensor) -> Tensor:
        own = {name: passing_for(tensor, parameters[name]) for name, tensor in free.items()}
        logits: Tensor = runner({**fixed, **own}, image[None])
        return (logits[0] * direction.to(logits.dtype)).sum()

    found: dict[str, Tensor] = vmap(grad(projected), in_dims=(None, 0, 0))(
        {name: parameters[name] for name in chosen}, images, cotangent
    )
    return found


def single_run(
    runner: Runner,
    image: Tensor,
    parameters: Mapping[str, Tensor],
    copies: int,
    mode: AbstractContextManager[object] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs one example with its graph.

    Args:
        runner: How the classifier is run.
        image: ``[1, ...]``.
        parameters: All parameters by name.
        copies: Beside how many copies of itself the image runs. The kernels of torch for a batch
            of one are not all right: the backward pass of an eval batch normalisation on the CPU
            takes a gradient that arrives transposed for a contiguous one (torch 2.14).
        mode: A context to run in.

    Returns:
        The logits, ``[1 + copies, C]``, and the leaves to differentiate by.
    """
    # All of them require gradients, chosen or not: hooks on activations ask for that.
    leaves = {name: stand_in(name, tensor) for name, tensor in parameters.items()}
    with torch.enable_grad():
        own = torch.cat([image] * (1 + copies)) if copies else image
        output = runner(leaves, own, mode=mode)
    if runner.by_copy:
        refuse_kept(output, leaves)
    return output, leaves


def single_gradients(
    runner: Runner,
    image: Tensor,
    cotangent: Tensor,
    parameters: Mapping[str, Tensor],
    chosen: Mapping[str, object],
    copies: int,
) -> dict[str, Tensor | None]:
    """Gradients of one example by ordinary autograd; None for what the logits do not depend on.

    Args:
        runner: How the classifier is run.
        image: ``[1, ...]``.
        cotangent: The gradient at the logits, ``[1, C]``.
        parameters: All parameters by name.
        chosen: The names of those to differentiate by.
        copies: Beside how many copies of itself the image runs, which get no gradient.
    """
    logits, leaves = single_run(runner, image, parameters, copies)
    whole = leaves if hooks_backward(runner.model) else chosen
    found = gradients_of(runner, logits, cotangent, leaves, whole)
    return {name: found[name] for name in chosen}


def hooks_backward(model: nn.Module) -> bool:
    """Whether a module hangs a hook on its backward pass.

    Such a hook waits for the gradients of all that its module takes and returns, as in training,
    so that the pass must go to every leaf.
    """
    return any(module._backward_hooks or module._backward_pre_hooks for module in model.modules())


def gradients_of(
    runner: Runner,
    logits: Tensor,
    cotangent: Tensor,
    leaves: Mapping[str, Tensor],
    chosen: Iterable[str],
) -> dict[str, Tensor | None]:
    """Carries a direction at one example's logits back to the leaves.

    Args:
        runner: How the classifier was run.
        logits: ``[1, C]``, or a row more for each copy beside an image.
        cotangent: ``[1, C]``; the copies get zero.
        leaves: What stood for the parameters, by name.
        chosen: The names of those to differentiate by.
    """
    names = list(chosen)
    if not logits.requires_grad or not names:
        return dict.fromkeys(names)
    shown = {id(leaf) for leaf in leaves_of(logits)}
    # A function that reaches a leaf by its own backward pass may lie on the way to others alone.
    pulled = names if all(id(leaves[name]) in shown for name in names) else list(leaves)
    direction = cotangent.to(logits.dtype)
    if len(logits) > 1:
        rest = direction.new_zeros(len(logits) - 1, *direction.shape[1:])
        direction = torch.cat([direction, rest])
    with torch.autocast(logits.device.type, enabled=False), runner.standing(leaves):
        found = pull_back(logits, [leaves[name] for name in pulled], direction)
    by_name = dict(zip(pulled, found, strict=True))
    return {name: by_name[name] for name in names}
