"""Parameters that a forward pass reaches by ways that what stands for them cannot follow."""

from collections.abc import Mapping

from torch import Tensor

from raygrad.errors import ConfigError
from raygrad.scoring.graph import leaves_of

_MARK = "_raygrad_stands_for"


class StrayParameterError(Exception):
    """A pass has used parameters of the model itself, or of another pass, not what stood for them.

    Args:
        names: Theirs.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names

    def refusal(self) -> ConfigError:
        """The error for the user, where no way of running the model helps."""
        return ConfigError(
            f"the forward pass must reach its parameters through the model, got {self} from a "
            "closure, a cache, or an object that cannot be copied. Read them from self in forward, "
            "and compute what is made of them there."
        )


def passing_for(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Lets a tensor pass for a parameter, to a forward that asks what it is or reads what hangs on.

    Args:
        tensor: What stands for the parameter; it is told to torch for one, and gets its attributes.
        parameter: The parameter, or what stood for it before.
    """
    own, others = vars(tensor), vars(parameter)
    if others:
        own.update((name, value) for name, value in others.items() if name not in own)
    own["_is_param"] = True
    return tensor


def stand_in(name: str, tensor: Tensor) -> Tensor:
    """A leaf that stands for a parameter in one pass, and that later passes know for a stranger."""
    leaf = passing_for(tensor.detach().requires_grad_(), tensor)
    setattr(leaf, _MARK, name)
    return leaf


def stand_in_for_kept(tensor: Tensor, names: Mapping[int, str]) -> Tensor:
    """Stands in a copy of a model for a tensor that the model keeps, with its graph.

    Args:
        tensor: What is kept.
        names: The parameters' names by their identities.

    Returns:
        A copy without the graph; a leaf that every pass knows for a stranger where the graph begins
        with parameters, which can be reached no more.
    """
    copied = tensor.detach().clone()
    made_of = sorted({names[id(leaf)] for leaf in leaves_of(tensor) if id(leaf) in names})
    if made_of:
        copied.requires_grad_()
        setattr(copied, _MARK, ", ".join(made_of))
    return copied


def kept_from_before(output: Tensor, stand_ins: Mapping[str, Tensor]) -> set[str]:
    """Names the parameters whose stand-ins of an earlier pass an output depends on.

    What a model keeps outside of itself (in a cache by its identity) is there in the next pass.

    Args:
        output: What the pass returned, with its graph.
        stand_ins: Those of this pass, by name.
    """
    own = {id(leaf) for leaf in stand_ins.values()}
    marked = (leaf for leaf in leaves_of(output) if hasattr(leaf, _MARK))
    return {getattr(leaf, _MARK) for leaf in marked if id(leaf) not in own}


def refuse_kept(output: object, stand_ins: Mapping[str, Tensor]) -> None:
    """Refuses an output that depends on stand-ins of an earlier pass.

    Raises:
        StrayParameterError: It does.
    """
    kept = kept_from_before(output, stand_ins) if isinstance(output, Tensor) else set()
    if kept:
        raise StrayParameterError(sorted(kept))
