"""The other ways to per-example gradient norms, each as a function of one batch.

Opacus and BackPACK are needed for this benchmark only. Each maker returns a step that computes the
norms over the weights of every example, or raises what the peer raises.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Step = Callable[[], Tensor]
VMAP_CHUNK = 8
"""Examples of a chunk of vmap, at least; more where their gradients stay below this:"""

VMAP_NUMBERS = 2**26


def prepared(model: nn.Module) -> nn.Module:
    """A copy that the hook-based peers accept: no in-place activations, biases frozen."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("bias" not in name.rpartition(".")[2])
    return model


def norms_of(gradients: list[Tensor], norm: str) -> Tensor:
    """Norms of explicit per-example gradients, ``[B]``."""
    rows = [gradient.flatten(1) for gradient in gradients]
    if norm == "l1":
        return torch.stack([row.abs().sum(1) for row in rows]).sum(0)
    if norm == "linf":
        return torch.stack([row.abs().amax(1) for row in rows]).amax(0)
    return torch.stack([(row * row).sum(1) for row in rows]).sum(0).sqrt()


def loop(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> Step:
    """Ordinary autograd, one example at a time."""
    model = prepared(model)
    weights = [p for p in model.parameters() if p.requires_grad]

    def step() -> Tensor:
        rows = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            found = torch.autograd.grad(F.cross_entropy(model(image), label), weights)
            rows.append(norms_of([gradient[None] for gradient in found], norm))
        return torch.cat(rows)

    return step


def functorch(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> Step:
    """``vmap(grad)`` of torch.func, in chunks."""
    model = prepared(model)
    state = {name: p.detach() for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    weights = {name: p for name, p in state.items() if name in trained}
    rest = {name: p for name, p in state.items() if name not in trained}

    def loss(free: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, {**rest, **free}, image[None]), label[None])

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))

    chunk = max(VMAP_CHUNK, VMAP_NUMBERS // sum(p.numel() for p in weights.values()))

    def step() -> Tensor:
        chunks = zip(images.split(chunk), labels.split(chunk), strict=True)
        return torch.cat(
            [norms_of(list(per_example(weights, x, y).values()), norm) for x, y in chunks]
        )

    return step


def opacus(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> Step:
    """Opacus: ghost clipping for l2, hooks that keep every gradient for the others."""
    from opacus.grad_sample import GradSampleModule
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
        GradSampleModuleFastGradientClipping,
    )

    model = prepared(model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    weights = [p for p in model.parameters() if p.requires_grad]
    if norm == "l2":
        hooked = GradSampleModuleFastGradientClipping(
            model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum", strict=True
        )
    else:
        hooked = GradSampleModule(model, loss_reduction="sum", strict=True)

    def step() -> Tensor:
        F.cross_entropy(hooked(images), labels, reduction="sum").backward()
        if norm == "l2":
            found = hooked.get_norm_sample()
        else:
            found = norms_of([p.grad_sample for p in weights], norm)
            for parameter in weights:
                parameter.grad_sample = None
        hooked.zero_grad(set_to_none=True)
        return found

    return step


def backpack(model: nn.Module, images: Tensor, labels: Tensor, norm: str) -> Step:
    """BackPACK: BatchL2Grad for l2, BatchGrad for the others."""
    from backpack import backpack as context
    from backpack import extend
    from backpack.extensions import BatchGrad, BatchL2Grad

    model = extend(prepared(model).eval(), use_converter=not isinstance(model, nn.Sequential))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    weights = [p for p in model.parameters() if p.requires_grad]

    def step() -> Tensor:
        with context(BatchL2Grad() if norm == "l2" else BatchGrad()):
            loss(model(images), labels).backward()
        if norm == "l2":
            found = torch.stack([p.batch_l2 for p in weights]).sum(0).sqrt()
        else:
            found = norms_of([p.grad_batch for p in weights], norm)
        for parameter in weights:
            parameter.grad = None
            for name in ("batch_l2", "grad_batch"):
                if hasattr(parameter, name):
                    delattr(parameter, name)
        return found

    return step


PEERS = {
    "Opacus": opacus,
    "BackPACK": backpack,
    "vmap(grad)": functorch,
    "batch-1 loop": loop,
}
