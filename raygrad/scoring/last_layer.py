"""Finds the last affine layer: the one that produces the logits."""

from collections import deque

from torch import Tensor, nn

from raygrad.errors import ConfigError, unknown_name
from raygrad.scoring.columns import group_of


def find_last_layer(logits: Tensor) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Follows the graph back from the logits to the first affine layers.

    Args:
        logits: The output of a forward pass whose calls are sites of a plan.

    Returns:
        The names of the last layer's weight (several if it is computed from several parameters),
        or None; and, where it is None, the candidates.
    """
    found: dict[tuple[str, ...], None] = {}
    queue, seen = deque([logits.grad_fn]), set()
    while queue:
        node = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        site = getattr(node, "site", None)
        if site is not None and site.kind in ("linear", "convolution") and site.weight is not None:
            found[site.weight.names] = None
        else:
            queue.extend(parent for parent, _ in node.next_functions)
    if len(found) == 1:
        return next(iter(found)), ()
    return None, tuple(name for names in found for name in names)


def named_last_layer(model: nn.Module, name: str) -> tuple[str, ...]:
    """The weights of the module that the user calls the last layer.

    Raises:
        ConfigError: There is no such module, or it has no weights.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise ConfigError(unknown_name("last_layer", name, [known for known in modules if known]))
    own = {id(parameter) for parameter in modules[name].parameters()}
    weights = tuple(
        full
        for full, parameter in model.named_parameters()
        if id(parameter) in own and group_of(full) == "weights"
    )
    if not weights:
        raise ConfigError(
            f"last_layer must have weights, got {name!r} ({type(modules[name]).__name__}), which "
            "has none. Name the layer that makes the logits."
        )
    return weights
