"""Finds the last affine layer: the one that produces the logits."""

from collections import deque
from collections.abc import Mapping
from typing import Any

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


_PRODUCTS = ("AddmmBackward0", "MmBackward0", "BmmBackward0", "LinearBackward0",
             "ConvolutionBackward0", "BaddbmmBackward0")  # fmt: skip
"""Nodes of affine layers in the graphs of torch."""


def last_layer_in_graph(logits: Tensor, names: Mapping[int, str]) -> tuple[str, ...] | None:
    """Follows an ordinary graph back from the logits to the products with weights.

    Args:
        logits: The output of a forward pass in which the parameters require gradients.
        names: The parameters' names by the identities of their leaves.

    Returns:
        The names of the one layer's weight, or None where there is none or more than one.
    """
    found: dict[tuple[str, ...], None] = {}
    queue, seen = deque([logits.grad_fn]), set()
    while queue:
        node = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        weights: tuple[str, ...] = ()
        if node.name() in _PRODUCTS:
            weights = tuple(
                name
                for parent, _ in node.next_functions
                for name in _made_of(parent, names) or ()
                if group_of(name) == "weights"
            )
        if weights:
            found[weights] = None
        elif any(_is_matrix(parent) for parent, _ in node.next_functions):
            # A node that holds a matrix and is no product that is known: it could be the layer.
            return None
        else:
            queue.extend(parent for parent, _ in node.next_functions)
    return next(iter(found)) if len(found) == 1 else None


def _is_matrix(node: Any) -> bool:
    return hasattr(node, "variable") and node.variable.ndim > 1


def _made_of(start: Any, names: Mapping[int, str]) -> tuple[str, ...] | None:
    """The parameters that an operand is computed from; None for what is too much to be a weight."""
    found: dict[str, None] = {}
    queue, seen = deque([start]), set()
    while queue:
        node = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        if len(seen) > 24 or (node is not start and node.name() in _PRODUCTS):
            return None
        if hasattr(node, "variable"):
            found[names.get(id(node.variable), "")] = None
        queue.extend(parent for parent, _ in node.next_functions)
    return tuple(name for name in found if name)


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
