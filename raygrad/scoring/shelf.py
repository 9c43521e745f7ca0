"""Keeps what was prepared for a model, for as long as the model lives and is not changed."""

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from torch import nn

from raygrad.scoring.fingerprint import Fingerprint, Sample, versions

T = TypeVar("T")

_KINDS = 8
"""Sets of columns that are kept for a model."""


@dataclass
class _Kept(Generic[T]):
    """What was prepared for one model."""

    fingerprint: Fingerprint
    """The model when it was prepared."""
    versions: list[int]
    """How often its tensors had been written to."""
    sample: bytes
    """Some of their numbers, which tell of writes that are not counted."""
    values: dict[Hashable, T] = field(default_factory=dict)
    """What was prepared, by what it is for; nothing in it may refer to the model."""


@final
class Shelf(Generic[T]):
    """Things prepared for models. A model is held weakly, and what is kept goes with it."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[nn.Module], _Kept[T]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, model: nn.Module, kind: Hashable) -> tuple[T | None, bool]:
        """Returns what is kept for a model, and whether its tensors were written to since.

        Args:
            model: The model.
            kind: What it is for.

        Returns:
            None where nothing is kept, or where anything of the model but the values of its tensors
            has changed since.
        """
        found = self._kept.get(id(model))
        if found is None or found[0]() is not model:
            return None, False
        kept = found[1]
        if kept.fingerprint != Fingerprint(model):
            del self._kept[id(model)]
            return None, False
        written = kept.versions != versions(model) or kept.sample != Sample(model).now()
        return kept.values.get(kind), written

    def keep(self, model: nn.Module, kind: Hashable, value: T) -> None:
        """Keeps something for a model as it is now.

        Args:
            model: The model.
            kind: What it is for.
            value: What was prepared; it must not refer to the model.
        """
        number = id(model)
        now: _Kept[T] = _Kept(Fingerprint(model), versions(model), Sample(model).now())
        found = self._kept.get(number)
        if found is not None and found[0]() is model:
            was = found[1]
            mine = (now.fingerprint, now.versions, now.sample)
            if (was.fingerprint, was.versions, was.sample) == mine:
                now.values = was.values
        now.values.pop(kind, None)
        while len(now.values) >= _KINDS:
            del now.values[next(iter(now.values))]
        now.values[kind] = value

        def forget(ref: weakref.ref[nn.Module]) -> None:
            if self._kept.get(number, (None,))[0] is ref:
                del self._kept[number]

        self._kept[number] = (weakref.ref(model, forget), now)
