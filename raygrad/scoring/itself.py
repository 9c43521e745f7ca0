"""Runs a model as it is, with its own parameters, and compares what its stand-ins make it say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raygrad.errors import ConfigError
from raygrad.scoring.fallback import single_run
from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.padding import padded_as_with_gradients
from raygrad.scoring.running import Runner, without_checkpoints
from raygrad.scoring.verify import BROKEN, near

_ROUGH = 5e-3
"""How far logits may be apart by other kernels, of products in TF32 too."""

BRANCHES = (
    "the forward pass must compute with what stands for its parameters as with themselves, got "
    "other logits (of a forward that goes by a parameter's class, its identity, or whether it "
    "requires a gradient). Let forward go by settings of the module, and parameters be of "
    "nn.Parameter's own class."
)


def refuse_other_branch(
    runner: Runner, parameters: Mapping[str, Tensor], image: Tensor, logits: Tensor
) -> None:
    """Refuses a model that computes with what stands for its parameters as it would not with them.

    Args:
        runner: Runs the model itself, of which it is known that it is left as it was.
        parameters: Its parameters by name.
        image: ``[1, ...]``.
        logits: What it said of the image with other tensors in the place of its parameters.

    Raises:
        ConfigError: It says something else of the image with its own parameters.
    """
    model = runner.model
    if any(tensor.is_inference() for tensor in model.parameters()):
        # Autograd takes none of them: there is no pass of the model as it is.
        return
    try:
        with _without_gradients(model), padded_as_with_gradients(model):
            own = model(image.clone())
    except BROKEN as error:
        if is_out_of_memory(error):
            raise
        return
    if not isinstance(own, Tensor) or near(own, logits, _ROUGH):
        return
    # An addition in place may make a formula's logits others than those of a plain pass.
    plain = single_run(runner, image, parameters, copies=0)[0].detach()
    if not near(plain, own, _ROUGH) or goes_by_gradients(runner, parameters, image):
        raise ConfigError(BRANCHES)


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Lets a forward pass keep its graph, and call ``backward``, without a trace at parameters."""
    held = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in held:
        parameter.grad = None
    try:
        with torch.enable_grad(), without_checkpoints():
            yield
    finally:
        for parameter, grad in held:
            parameter.grad = grad


def goes_by_gradients(runner: Runner, parameters: Mapping[str, Tensor], image: Tensor) -> bool:
    """Whether a model says something else of an image where its parameters require no gradient."""
    with torch.enable_grad():
        without = runner(parameters, image)
    plain = single_run(runner, image, parameters, copies=0)[0].detach()
    return isinstance(without, Tensor) and not near(without, plain, _ROUGH)
