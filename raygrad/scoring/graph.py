"""Walks the graph that autograd keeps of a forward pass."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def ancestors(start: Any, through: Callable[[Any], bool] = lambda node: True) -> Iterator[Any]:
    """The nodes of a graph, each once, those with the fewest steps from the start first.

    Args:
        start: A node, such as ``logits.grad_fn``; None has none.
        through: Whether to go on from a node to what it was computed from.
    """
    queue, seen = deque([start]), set()
    while queue:
        node = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if through(node):
            queue.extend(parent for parent, _ in node.next_functions)


def own_functions(output: Tensor) -> bool:
    """Whether an output's graph has functions with a backward of their own, written in Python."""
    return any(isinstance(node, torch._C._FunctionBase) for node in ancestors(output.grad_fn))


def leaves_of(output: Tensor) -> list[Tensor]:
    """The tensors that an output's graph begins with."""
    return [node.variable for node in ancestors(output.grad_fn) if hasattr(node, "variable")]
