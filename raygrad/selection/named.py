"""The methods of selection by name, with their options and what each of them reads."""

import dataclasses
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from raygrad.errors import ConfigError, unknown_name
from raygrad.selection.badge import Badge
from raygrad.selection.batch_aware import BatchAware
from raygrad.selection.comparing import Comparing
from raygrad.selection.coverage import Ccs, DualBeta, Moderate
from raygrad.selection.d2 import D2
from raygrad.selection.k_center import KCenter
from raygrad.selection.methods import (
    SCORE,
    Band,
    Easiest,
    GradientCdf,
    MaxGradient,
    Method,
    NonExtremeMaxGradient,
    Random,
)
from raygrad.selection.semdedup import SemDeDup

METHODS: dict[str, type[Method]] = {
    "random": Random,
    "max_gradient": MaxGradient,
    "non_extreme_max_gradient": NonExtremeMaxGradient,
    "gradient_cdf": GradientCdf,
    "easiest": Easiest,
    "band": Band,
    "ccs": Ccs,
    "dual_beta": DualBeta,
    "moderate": Moderate,
    "semdedup": SemDeDup,
}
"""Methods that draw from rows, by name: each a `summary`, a `paper`, and its options as fields.
They draw from Parquet of any size."""

COMPARING: dict[str, type[Comparing] | type[BatchAware]] = {
    "k_center": KCenter,
    "d2": D2,
    "badge": Badge,
    "batch_aware": BatchAware,
}
"""Methods that compare examples with one another, within a class or a block."""

VECTORS = ("features", "errors")
"""What a side table of features holds of each example."""

FLAGS_OF = {
    "non_extreme_max_gradient.drop_fraction": "--drop-fraction",
    "ccs.drop_schedule": "--ccs-drop",
}
"""Options that have a flag of their own."""

Known = Method | Comparing | BatchAware


@runtime_checkable
class FromFeatures(Protocol):
    """A method that draws by one column, which features make."""

    columns: ClassVar[tuple[str, ...]]

    def column(
        self, features: NDArray[Any], labels: NDArray[Any], order: NDArray[np.int64], seed: int
    ) -> NDArray[np.float64]:
        """Returns the column of all examples, NaN for those that are not in `order`."""


def check_method(method: str, **options: Any) -> Known:
    """Returns a method with its options.

    Raises:
        ConfigError: The name is not of a known method, an option not one of its own, or its value
            impossible.
    """
    known: dict[str, Any] = METHODS | COMPARING
    if method not in known:
        raise ConfigError(unknown_name("method", method, known))
    names = [field.name for field in dataclasses.fields(known[method])]
    for name in options:
        if name not in names:
            raise ConfigError(
                unknown_name(f"option of {method}", name, names)
                if names
                else f"{method} takes no options, got {name!r}. Leave it out."
            )
    return known[method](**options)


def row_method(method: str, **options: Any) -> Method:
    """Returns a method that draws from rows, with its options.

    Raises:
        ConfigError: As of `check_method`, or it compares examples.
    """
    chosen: Any = check_method(method, **options)
    if method in COMPARING:
        raise ConfigError(
            f"a method that draws from a score table alone must be one of {', '.join(METHODS)}, "
            f"got {method}, which compares examples. Call raygrad.selection.draw."
        )
    return chosen


def vectors_of(method: Known) -> tuple[str, ...]:
    """Returns what a method reads of a side table: of `VECTORS`, possibly nothing."""
    if isinstance(method, FromFeatures):
        return ("features",)
    return tuple(name for name in VECTORS if name in method.columns)


def needs(method: Known) -> str:
    """Returns what a method reads, in words."""
    read = [name for name in method.columns if name not in VECTORS]
    vectors = vectors_of(method)
    if isinstance(method, FromFeatures):
        read = []
    if vectors:
        read.append(" and ".join(vectors))
    text = {SCORE: "a score"}
    return " and ".join(text.get(name, name) for name in read) or "nothing"


def parsed_options(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns the options of each method, from texts such as `d2.num_neighbours=5`.

    Raises:
        ConfigError: A text is not of that form, or names no option, or its value is not of the
            option's type.
    """
    known: dict[str, Any] = METHODS | COMPARING
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, option = name.partition(".")
        if not (equals and dot and option and value):
            raise ConfigError(
                f"an option must be written METHOD.NAME=VALUE, got {text!r}. "
                "Such as d2.num_neighbours=5."
            )
        check_method(method)
        kinds = {field.name: type(field.default) for field in dataclasses.fields(known[method])}
        if option not in kinds:
            check_method(method, **{option: value})  # refuses it by name
        if option in found.setdefault(method, {}):
            raise ConfigError(f"an option must be given once, got {name} twice. Leave one out.")
        found[method][option] = _value(text, value, kinds[option])
    for method, options in found.items():
        check_method(method, **options)
    return found


def _value(text: str, value: str, kind: type) -> Any:
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"the option must be true or false, got {text!r}.")
        return value.lower() == "true"
    try:
        found = kind(value)
    except ValueError as error:
        raise ConfigError(f"the option must be of type {kind.__name__}, got {text!r}.") from error
    if isinstance(found, float) and not np.isfinite(found):
        raise ConfigError(f"the option must be finite, got {text!r}.")
    return found
