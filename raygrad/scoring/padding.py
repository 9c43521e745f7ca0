"""Keeps torch's encoders to one way with padded sequences, gradients wanted or not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from raygrad.scoring.swapping import with_forward


@contextmanager
def padded_as_with_gradients(model: nn.Module) -> Iterator[None]:
    """Lets each `nn.TransformerEncoder` compute padded sequences as it does where gradients flow.

    Where none is wanted, torch packs sequences by their padding mask and fills the padded places of
    the output with zeros; else it computes these places too. A mean over all places then is another
    number. Only calls with a mask of padding are changed; all others keep their kernels.

    Args:
        model: The model; its encoders' ``forward`` is replaced on the instances meanwhile.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.TransformerEncoder):
                stack.enter_context(with_forward(module, _slowly_where_padded(module.forward)))
        yield


def _slowly_where_padded(run: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        mask = args[2] if len(args) > 2 else kwargs.get("src_key_padding_mask")
        fast = torch.backends.mha.get_fastpath_enabled()
        if mask is None or not fast:
            return run(*args, **kwargs)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return run(*args, **kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)

    return forward
