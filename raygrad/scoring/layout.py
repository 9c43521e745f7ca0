"""Where the examples of a batch are in an activation."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The place of the examples: one dimension, which may hold several rows for each of them."""

    dim: int
    """The dimension that grows with the batch."""
    fold: int
    """Rows of that dimension for one example (windows, or tokens of a sequence)."""
    major: bool
    """Whether an example's rows are neighbours (``[B * k]``), not interleaved (``[k * B]``)."""

    def split(self, x: Tensor) -> Tensor:
        """Returns a view with the example first: ``[B, ...]``, or ``[B, ..., k, ...]`` if folded.

        The dimension of the folded rows stays where the batch was.
        """
        if self.fold == 1:
            return x.movedim(self.dim, 0)
        batch = x.shape[self.dim] // self.fold
        if self.major:
            return x.unflatten(self.dim, (batch, self.fold)).movedim(self.dim, 0)
        return x.unflatten(self.dim, (self.fold, batch)).movedim(self.dim + 1, 0)


def find_layout(single: Tensor, double: Tensor) -> Layout | None:
    """Finds where the batch is, from an activation of one example and of two (the same one first).

    Args:
        single: The activation for the batch ``[a]``.
        double: The activation for the batch ``[a, b]``.

    Returns:
        The layout, or None where the shapes do not grow with the batch in one dimension, where
        the first example's values are not found again, or where they are found in two orders.
    """
    if single.ndim != double.ndim:
        return None
    pairs = list(enumerate(zip(single.shape, double.shape, strict=True)))
    grown = [d for d, (one, two) in pairs if one != two]
    if len(grown) != 1 or double.shape[grown[0]] != 2 * single.shape[grown[0]]:
        return None
    dim, fold = grown[0], single.shape[grown[0]]
    if single.numel() == 0:
        return None
    scale = float(single.detach().double().abs().max())
    errors = {}
    for major in (True, False) if fold > 1 else (True,):
        layout = Layout(dim, fold, major)
        difference = layout.split(double)[0].double() - layout.split(single)[0].double()
        errors[major] = float(difference.detach().abs().max())
    major = fold == 1 or errors[True] <= errors[False]
    if not errors[major] <= 0.05 * scale:
        return None
    if fold > 1 and max(errors.values()) <= 1e-4 * scale:
        # Both orders give the same rows: these images cannot tell which it is.
        return None
    return Layout(dim, fold, major)
