"""A first layer that is no more than the statistics of the images it is trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raygrad.training import ranks
from raygrad.training.examples import Examples
from raygrad.training.networks import Whitening
from raygrad.training.preprocess import Normalize
from raygrad.training.streamed_examples import StreamedExamples

SAMPLE = 5000
"""Images whose patches are looked at, at most: evenly spread over the split, whatever its order."""
_CHUNK = 500
_FLOOR = 5e-4
"""Added to each variance, as airbench94 does: directions that images hardly have stay small."""


def fit_whitening(
    network: nn.Module, examples: Examples | StreamedExamples, normalize: Normalize
) -> None:
    """Sets whitening layers that were never set from the images a network is to be trained on.

    It is a function of those images alone: no seed, no other split, no other subset. A layer whose
    weights were loaded stays as it was loaded. All ranks get the first one's weights.

    Args:
        network: Any; without a whitening layer nothing is done.
        examples: The images that it is trained on.
        normalize: What the network sees of them.
    """
    layers = [m for m in network.modules() if isinstance(m, Whitening) and not m.is_fitted]
    for layer in layers:
        covariance = patch_covariance(examples, normalize, layer.kernel_size)
        filters = whitening_filters(covariance, layer.weight[0].shape)
        filters = ranks.gathered(filters)[0]
        with torch.no_grad():
            layer.weight.copy_(filters)
            layer.is_fitted.fill_(1)


def patch_covariance(
    examples: Examples | StreamedExamples, normalize: Normalize, kernel: Sequence[int]
) -> Tensor:
    """Returns the second moments of all patches of the sample, float64 `[P, P]`, on the CPU.

    Args:
        examples: The images.
        normalize: What is seen of them.
        kernel: Rows and columns of a patch; P is their product times the channels.
    """
    wanted = min(SAMPLE, len(examples))
    positions = torch.arange(wanted) * len(examples) // wanted
    total, count = torch.zeros((), dtype=torch.float64), 0
    for at in positions.split(_CHUNK):
        images = normalize(examples.take(at).cpu())
        patches = images.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2).double()
        total = total + rows.T @ rows
        count += len(rows)
    return total / count


def whitening_filters(covariance: Tensor, shape: Sequence[int]) -> Tensor:
    r"""Returns the filters that whiten patches, each beside its negative, float32 `[2 P, *shape]`.

    Of the eigenvectors :math:`v_i` and eigenvalues :math:`\lambda_i` of the covariance,
    :math:`\pm v_i / \sqrt{\lambda_i + \epsilon}` (Jordan 2024, arXiv 2404.00498, section 3.2).
    An eigenvector's sign is free: its largest entry is taken to be positive.

    Args:
        covariance: float64 `[P, P]`.
        shape: Of one filter, of P numbers.
    """
    values, vectors = torch.linalg.eigh(covariance)
    largest = vectors.abs().argmax(0)
    vectors = vectors * vectors[largest, torch.arange(len(values))].sign()
    filters = (vectors / (values.clamp(min=0) + _FLOOR).sqrt()).T.reshape(-1, *shape)
    return torch.cat([filters, -filters]).float()
