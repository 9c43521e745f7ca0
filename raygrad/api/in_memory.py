"""Norms and scores of a data set in memory: a model, a torch data set, one table; no run folder."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from raygrad.errors import ConfigError, DataError
from raygrad.scoring import (
    GRAD_COLUMNS,
    SCORE_COLUMNS,
    GradNormScorer,
    check_columns,
    example_scores,
)
from raygrad.scoring.numerics import numerics

log = logging.getLogger("raygrad")

DEFAULT_COLUMNS = ("grad_l2_last_layer_weights", "grad_l2_weights", *SCORE_COLUMNS)
"""What is computed where nothing else is asked for."""

_LOOKED_AT = 4
"""So many examples are fetched twice, to see whether the data set varies them at random."""


def score(
    model: nn.Module,
    dataset: Any,
    columns: Sequence[str] = DEFAULT_COLUMNS,
    *,
    batch_size: int = 64,
    loss: str | Any | None = None,
) -> pa.Table:
    """Scores every example of a data set in memory, in its order; no run folder, no Ray.

    The model is scored in evaluation mode, on the device and in the type that it has, and is left
    in the modes that it came in. A score does not depend on the batch beyond rounding.

    Args:
        model: A classifier from images ``[B, ...]`` to logits ``[B, C]``.
        dataset: Pairs of an image (a float tensor, as the model takes it) and a label (its class,
            an int): a torch data set, a list, or a DataLoader that keeps their order.
        columns: Gradient norms and scores, as `raygrad.scoring` names them: higher = harder.
        batch_size: Examples a pass, at least 1; a DataLoader brings its own.
        loss: The loss whose gradient is meant, as `per_example_grad_norms` takes it.

    Returns:
        One row an example: position (int64, from 0), label, prediction (int64), correct (bool),
        and each asked column (float32).

    Raises:
        ConfigError: A column is unknown, a loader shuffles or drops examples, or images, labels
            and model do not fit together.
        DataError: A label is no class, there is no example, or no score of a column is a number.

    Example:
        >>> import torch, raygrad
        >>> images, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> model = torch.nn.Linear(4, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[2.0, 0, 2, 2], [0, 2, 0, 0]]))
        ...     _ = model.bias.zero_()
        >>> data = torch.utils.data.TensorDataset(images, labels)
        >>> table = raygrad.score(model, data, ["grad_l2_weights"])
        >>> table["grad_l2_weights"].to_numpy().argmax()  # the last is labelled against the model
        np.int64(3)
        >>> table["correct"].to_pylist()
        [True, True, True, False]
    """
    asked = check_columns(columns)
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}. Raise it.")
    grad_columns = [column for column in asked if column in GRAD_COLUMNS]
    batches = _batches(dataset, batch_size)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with _evaluating(model), numerics("exact", device):
        scorer = GradNormScorer(model, grad_columns, loss=loss) if grad_columns else None
        parts = [_scored(model, scorer, *batch, asked, loss) for batch in batches]
    if not parts:
        raise DataError("a data set must hold an example, got none. Give one with examples.")
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _check_finite(found, asked)
    return pa.table({"position": np.arange(len(found["label"])), **found})


def _scored(
    model: nn.Module,
    scorer: GradNormScorer | None,
    images: Any,
    labels: Any,
    columns: Sequence[str],
    loss: Any,
) -> dict[str, np.ndarray]:
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    inputs = _images(images).to(like.device, like.dtype)
    targets = _labels(labels, len(inputs)).to(like.device)
    if scorer is not None:
        scored = scorer.score(inputs, targets)
        logits, values = scored.logits, scored.norms
    else:
        with torch.no_grad():
            logits, values = model(inputs), {}
    values = {**values, **example_scores(logits, targets, loss=loss)}
    names = ("prediction", "correct", *columns)
    return {
        "label": targets.cpu().numpy(),
        **{name: values[name].detach().cpu().numpy() for name in names},
    }


def _batches(dataset: Any, batch_size: int) -> Iterable[tuple[Any, Any]]:
    """Returns pairs of images and labels, in the order of the data set."""
    if isinstance(dataset, DataLoader):
        _check_loader(dataset)
        if not isinstance(dataset.dataset, IterableDataset):
            _check_same_twice(dataset.dataset)
        return map(_pair, dataset)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        if not isinstance(dataset, Iterable):
            raise ConfigError(
                f"a data set must be one of torch, a list or a DataLoader of (image, label), got "
                f"{type(dataset).__name__}. Wrap it in torch.utils.data.TensorDataset."
            )
        return _stacked(iter(dataset), batch_size)
    _check_same_twice(dataset)
    return _stacked((dataset[at] for at in range(len(dataset))), batch_size)


def _stacked(examples: Iterator[Any], batch_size: int) -> Iterator[tuple[Any, Any]]:
    images: list[Tensor] = []
    labels: list[int] = []
    for example in examples:
        image, label = _pair(example)
        images.append(_images(image))
        labels.append(_class(label))
        if images[-1].shape != images[0].shape:
            raise ConfigError(
                f"images of a data set must have one size, got {list(images[0].shape)} and "
                f"{list(images[-1].shape)}. Resize them in the data set's transform."
            )
        if len(images) == batch_size:
            yield torch.stack(images), torch.tensor(labels)
            images, labels = [], []
    if images:
        yield torch.stack(images), torch.tensor(labels)


def _pair(example: Any) -> tuple[Any, Any]:
    if not isinstance(example, tuple | list) or len(example) != 2:
        got = f"{len(example)} things" if isinstance(example, tuple | list) else type(example)
        raise ConfigError(
            f"a data set must give pairs of image and label, got {got}. Wrap it in one that does."
        )
    return example[0], example[1]


def _images(images: Any) -> Tensor:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise ConfigError(
            f"images must be float tensors as the model takes them, got {got}. Give the data set "
            "its transform, such as torchvision's ToTensor and Normalize."
        )
    return images


def _class(label: Any) -> int:
    if isinstance(label, Tensor) and label.numel() == 1:
        label = label.item()
    if isinstance(label, np.ndarray | np.generic) and np.size(label) == 1:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise ConfigError(f"a label must be a class, an int, got {label!r}. Map names to numbers.")
    return label


def _labels(labels: Any, batch: int) -> Tensor:
    found = torch.as_tensor(labels)
    if found.is_floating_point() or found.dtype == torch.bool:
        raise ConfigError(f"labels must be classes, ints, got {found.dtype}. Use labels.long().")
    return found.reshape(-1).long() if found.numel() == batch else found.long()


def _check_loader(loader: DataLoader) -> None:
    """Raises ConfigError where rows of the table would not be the data set's, in its order."""
    if isinstance(loader.dataset, IterableDataset):
        return
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", None)
    if not isinstance(sampler, SequentialSampler) or not isinstance(batches, BatchSampler | None):
        kind = type(sampler if sampler is not None else batches).__name__
        raise ConfigError(
            f"a loader must keep the data set's order, got a {kind}. Give loader.dataset, or a "
            "loader with shuffle=False (a torch.utils.data.Subset for a part)."
        )
    if loader.drop_last and loader.batch_size and len(loader.dataset) % loader.batch_size:  # type: ignore[arg-type]  # map-style sets have a length
        raise ConfigError(
            "a loader must give every example, got drop_last=True. Give drop_last=False."
        )


def _check_same_twice(dataset: Any) -> None:
    """Says so where the data set gives other images the second time: it augments them."""
    for at in range(min(_LOOKED_AT, len(dataset))):
        once, again = _pair(dataset[at])[0], _pair(dataset[at])[0]
        if isinstance(once, Tensor) and not torch.equal(once, again):
            log.warning(
                "score: the data set gives example %d another image each time; scores are of one "
                "random variant each. Take the augmentation out of its transform.",
                at,
            )
            return


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode; each module gets its mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_finite(found: dict[str, np.ndarray], columns: Sequence[str]) -> None:
    for name in columns:
        finite = int(np.isfinite(found[name]).sum())
        total = len(found[name])
        if not finite:
            raise DataError(
                f"scores must be numbers, got none of {total:,} in {name}. Look for NaN in the "
                "model's weights or the images."
            )
        if finite < total:
            log.warning("score: %d of %d scores of %s are no numbers", total - finite, total, name)
