"""Finds the last affine layer: the one that produces the logits."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from raygrad.errors import ConfigError, unknown_name
from raygrad.scoring.collect import Site
from raygrad.scoring.columns import group_of
from raygrad.scoring.graph import ancestors


def find_last_layer(logits: Tensor) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Follows the graph back from the logits to the first affine layers.

    Args:
        logits: The output of a forward pass whose calls are sites of a plan.

    Returns:
        The names of the last layer's weight (several if it is computed from several parameters),
        or None; and, where it is None, the candidates.
    """
    found: dict[tuple[str, ...], None] = {}
    for node in ancestors(logits.grad_fn, lambda node: not _affine_weight(node)):
        weight = _affine_weight(node)
        if weight:
            found[weight] = None
    if len(found) == 1:
        return next(iter(found)), ()
    return None, tuple(name for names in found for name in names)


def _affine_weight(node: Any) -> tuple[str, ...]:
    """The names of the weight of a planned affine call; nothing for another node."""
    site = getattr(node, "site", None)
    if site is None or site.weight is None or site.kind not in _AFFINE:
        return ()
    names: tuple[str, ...] = site.weight.names
    return names


def affine(sites: Mapping[int, Site]) -> set[str]:
    """The weights of the sites that could be a last layer."""
    found = (site.weight for site in sites.values() if site.kind in _AFFINE)
    return {name for role in found if role for name in role.names}


_AFFINE = ("linear", "convolution")
"""Kinds of sites that could be a last layer."""

_PRODUCTS = ("AddmmBackward0", "MmBackward0", "BmmBackward0", "LinearBackward0",
             "ConvolutionBackward0", "BaddbmmBackward0")  # fmt: skip
"""Nodes of affine layers in the graphs of torch."""

_FACTORS = {"AddmmBackward0": slice(1, None), "BaddbmmBackward0": slice(1, None),
            "LinearBackward0": slice(2), "ConvolutionBackward0": slice(2)}  # fmt: skip
"""Which operands are multiplied, where another is added."""

_WITH_SUM = ("AddmmBackward0", "BaddbmmBackward0")
"""Those whose first operand is added to the product."""


def last_layer_in_graph(
    logits: Tensor, names: Mapping[int, str]
) -> tuple[tuple[str, ...] | None, frozenset[str]]:
    """Follows an ordinary graph back from the logits to the products with weights.

    Args:
        logits: The output of a forward pass in which the parameters require gradients.
        names: The parameters' names by the identities of their leaves.

    Returns:
        The names of the one layer's weight, or None where there is none or more than one; and all
        matrices that are met on the way, those of the products with them.
    """
    found: dict[tuple[str, ...], None] = {}
    others: set[str] = set()
    starts = [logits.grad_fn]
    for start in starts:
        for node in ancestors(start, lambda node: not _product_weights(node, names)):
            weights = _product_weights(node, names)
            if weights:
                found[weights] = None
                # What is added to a product stands beside it.
                added = node.next_functions[0][0] if node.name() in _WITH_SUM else None
                if added not in starts and not hasattr(added, "variable"):
                    starts.append(added)
            else:
                # One that holds a matrix and is no product that is known: it could be the layer.
                matrices = (parent for parent, _ in node.next_functions if _is_matrix(parent))
                others.update(names.get(id(parent.variable), "") for parent in matrices)
    met = frozenset(others.union(*found) - {""})
    return next(iter(found)) if len(found) == 1 and not others else None, met


def agreed(
    in_sites: tuple[tuple[str, ...] | None, tuple[str, ...]],
    in_graph: tuple[tuple[str, ...] | None, frozenset[str]],
    known: set[str],
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The last layer by both graphs: what has no formula only the ordinary one shows.

    Args:
        in_sites: What `find_last_layer` says.
        in_graph: What `last_layer_in_graph` says.
        known: The weights of affine calls with a formula that is right.

    Returns:
        As `find_last_layer`.
    """
    (last, candidates), (ordinary, met) = in_sites, in_graph
    if last and ordinary and set(last) <= set(ordinary):
        # What else is in that product is made of parameters alone: embeddings of indices.
        return last, ()
    if met - known:
        return (ordinary, ()) if ordinary else (None, tuple(sorted(met)))
    return last or (ordinary if not candidates else None), candidates


def _product_weights(node: Any, names: Mapping[int, str]) -> tuple[str, ...]:
    """The names of the weights that a product multiplies; nothing for another node."""
    if node.name() not in _PRODUCTS:
        return ()
    return tuple(
        name
        for parent, _ in node.next_functions[_FACTORS.get(node.name(), slice(None))]
        for name in _made_of(parent, names) or ()
        if group_of(name) == "weights"
    )


def _is_matrix(node: Any) -> bool:
    return hasattr(node, "variable") and sum(size > 1 for size in node.variable.shape) > 1


def _made_of(start: Any, names: Mapping[int, str]) -> tuple[str, ...] | None:
    """The parameters that an operand is computed from; None for what is too much to be a weight."""
    found: dict[str, None] = {}
    for number, node in enumerate(ancestors(start)):
        if number >= 24 or (node is not start and node.name() in _PRODUCTS):
            return None
        if hasattr(node, "variable"):
            found[names.get(id(node.variable), "")] = None
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
