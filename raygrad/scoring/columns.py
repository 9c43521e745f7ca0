"""The names of the score columns, and what each gradient-norm column asks of the parameters."""

from collections.abc import Iterable, Sequence

from raygrad.errors import ConfigError, unknown_name

NORMS = ("l1", "l2", "linf")
"""Norms of a gradient that can be asked for."""

SUBSETS = ("all", "biases", "weights", "last_layer_weights", "trainable")
"""Parameter subsets that a norm can be taken over: those of arXiv 1811.12569, section 4.1, and the
parameters that require a gradient when the batch is scored (a frozen backbone's head)."""

GRAD_COLUMNS = tuple(f"grad_{norm}_{subset}" for norm in NORMS for subset in SUBSETS)
"""The gradient-norm columns."""

SCORE_COLUMNS = ("loss", "el2n", "margin", "entropy", "least_confidence")
"""Scores that need the logits only; higher means harder in all of them."""


def check_columns(
    columns: Iterable[str], known: Sequence[str] = GRAD_COLUMNS + SCORE_COLUMNS
) -> tuple[str, ...]:
    """Returns the asked columns as a tuple, without repeats, in the order asked.

    Args:
        columns: Names of score columns.
        known: The names that may be asked for.

    Raises:
        ConfigError: A name is not known (the text offers the nearest right one), a single string
            came where a list belongs, or nothing was asked for.
    """
    if isinstance(columns, str):
        raise ConfigError(
            f"columns must be a list of names, got the string {columns!r}. Write [{columns!r}]."
        )
    asked = tuple(dict.fromkeys(columns))
    for column in asked:
        if column not in known:
            raise ConfigError(unknown_name("column", column, known))
    if not asked:
        raise ConfigError("columns must name at least one score, got none. Ask for a column.")
    return asked


def split_column(column: str) -> tuple[str, str]:
    """Returns (norm, subset) of a gradient-norm column, such as ``("l2", "weights")``."""
    _, norm, subset = column.split("_", 2)
    return norm, subset


def group_of(parameter: str) -> str:
    """Returns "biases" or "weights": the subset that a parameter belongs to by its own name.

    A parameter is a bias when its own name (the last part of its path) contains "bias". The
    originals of a parametrised tensor (``parametrizations.weight.original0``) count under the name
    of the tensor that they make.
    """
    *path, own = parameter.split(".")
    if len(path) >= 2 and path[-2] == "parametrizations":
        own = path[-1]
    return "biases" if "bias" in own else "weights"


def asks_for(columns: Iterable[str], subset: str) -> bool:
    """Whether any of the gradient-norm columns is over the subset."""
    return any(split_column(column)[1] == subset for column in columns)


def norms_needed(
    columns: Iterable[str], parameter: str, last_layer: str | None, *, trainable: bool = False
) -> frozenset[str]:
    """Returns the norms of one parameter's gradient that the columns need.

    Args:
        columns: Gradient-norm columns.
        parameter: The parameter's path in the model.
        last_layer: Path of the last layer's weight, or None when no column asks for it.
        trainable: Whether the parameter requires a gradient.
    """
    group = group_of(parameter)
    needed = set()
    for column in columns:
        norm, subset = split_column(column)
        last = subset == "last_layer_weights" and parameter == last_layer
        if subset in ("all", group) or last or (subset == "trainable" and trainable):
            needed.add(norm)
    return frozenset(needed)
