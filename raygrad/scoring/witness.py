"""Looks over a plain run of a model: which tensors it uses, and how many calls it makes."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raygrad.scoring.calls import PARSERS
from raygrad.scoring.trace import COMPOSITES, tensors_in


class Witness(TorchFunctionMode):
    """Counts calls, and names the parameters of the model that are used past their stand-ins.

    It sees all that a `Trace` sees of these, and leaves every call as it is.

    Args:
        model: The model that will run.
        parameters: The tensors that stand for its parameters, by name.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.count = 0
        """Calls of functions that may have a formula."""
        self.strays: set[str] = set()
        """Parameters of the model itself that were reached past their stand-ins."""
        self._originals = {
            id(tensor): name
            for name, tensor in model.named_parameters()
            if name in parameters and parameters[name] is not tensor
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        self.count += func in PARSERS
        for tensor in tensors_in((args, kwargs)):
            name = self._originals.get(id(tensor))
            if name is not None:
                self.strays.add(name)
        return func(*args, **kwargs)
