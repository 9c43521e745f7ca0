"""Tells backward passes that go by how many images there are."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from raygrad.scoring.out_of_memory import is_out_of_memory
from raygrad.scoring.running import Runner, widened
from raygrad.scoring.verify import ALL_NORMS, BROKEN, Reference, is_half, norm_of, single_reference

BY_SIZE = (
    "the backward pass must give an image one gradient, however many stand beside it, got a model "
    "that scales gradients by the size of the batch (in a hook, in a function of its own, or by "
    "numel() of activations), beside a normalisation that torch computes right for several images "
    "alone. Scale by the size of one image."
)

_CLEAR = 1e-2
"""How far, relatively, norms of one image are apart where they go by the size: 2 images and 3."""

_ZERO = 1e-6
"""What is nothing, relative to the largest norm: keys' biases have no gradient but rounding."""


def goes_by_size(
    runner: Runner, parameters: Mapping[str, Tensor], image: Tensor, reference: Reference
) -> bool:
    """Whether an image's gradients beside two copies of itself are others than beside one.

    A kernel that is wrong for a batch of one is right for both; what goes by the size is not. Where
    rounding could make the difference (at a kink), float64 decides.

    Args:
        runner: How the model is run.
        parameters: Its parameters by name.
        image: The first image of the reference.
        reference: What plain autograd said of it beside one copy.
    """

    def norms(how: Runner, tensors: Mapping[str, Tensor], at: Tensor, copies: int) -> _Norms:
        return _rows(single_reference(how, tensors, at, copies))

    two, three = _rows(reference), norms(runner, parameters, image, 2)
    if is_half(reference.logits):
        return _apart(two, three, 0.1, 1e-2)
    if not _apart(two, three, _CLEAR, _ZERO):
        return False
    wide, tensors = replace(runner, wide=True), widened(parameters)
    images = image.double() if image.is_floating_point() else image
    try:
        exact = norms(wide, tensors, images, 1)
        return _apart(exact, norms(wide, tensors, images, 2), _CLEAR, _ZERO)
    except BROKEN as error:
        if is_out_of_memory(error):
            raise
        # It has no float64: what is clear in float32 is all there is.
        return _apart(two, three, _CLEAR, 1e-3)


_Norms = dict[tuple[str, str], Tensor]
"""Norms of the first image, by parameter and norm."""


def _rows(reference: Reference) -> _Norms:
    return {
        (name, norm): norm_of(partial, norm)[:1]
        for name, partial in reference.partials.items()
        for norm in ALL_NORMS
    }


def _apart(one: _Norms, other: _Norms, clear: float, nothing: float) -> bool:
    zero = torch.zeros(1, dtype=torch.float64)
    largest = {norm: max((one[k] for k in one if k[1] == norm), default=zero) for norm in ALL_NORMS}
    for key, exact in one.items():
        found = other.get(key, torch.zeros_like(exact))
        limit = clear * exact + nothing * largest[key[1]]
        if bool((found - exact).abs() > limit):
            return True
    return False
