"""Which nodes of a cluster a stage may stand on: labels, as NAME=VALUE."""

import re
from collections.abc import Sequence

from raygrad.config.declaring import require

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME = rf"(?:{_WORD}/)?{_WORD}"
_VALUE = rf"!?(?:{_WORD}|in\({_WORD}(?:,{_WORD})*\))"
_LABEL = re.compile(rf"({_NAME})=({_VALUE})")


def check_nodes(nodes: Sequence[str]) -> None:
    """Raises ConfigError unless every label is NAME=VALUE and no name stands twice."""
    names = []
    for label in nodes:
        match = _LABEL.fullmatch(label)
        remedy = "Write raygrad=score, raygrad=!train or raygrad=in(score,train)."
        require(match is not None, "nodes must be labels, NAME=VALUE", label, remedy)
        names.append(label.partition("=")[0])
    require(len(set(names)) == len(names), "nodes must not repeat a label", tuple(nodes))


def selector_of(nodes: Sequence[str]) -> dict[str, str]:
    """Returns labels as Ray's label selector: what a label must be, by its name."""
    return dict(label.split("=", 1) for label in nodes)


def is_selected(labels: dict[str, str], selector: dict[str, str]) -> bool:
    """Tells whether a node of these labels is one that a selector asks for, as Ray understands it.

    A node without the label is none of its values.
    """
    for name, asked in selector.items():
        values = asked.removeprefix("!").removeprefix("in(").removesuffix(")").split(",")
        if (labels.get(name) in values) == asked.startswith("!"):
            return False
    return True
