"""The test images that a network is most wrong about: those whose influences are worth a look."""

import logging

import numpy as np
import torch

from raygrad.config import StudyConfig
from raygrad.data.index import read_index
from raygrad.data.reading import read_rows
from raygrad.errors import ConfigError, DataError
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.runs.layout import RunLayout
from raygrad.selection.keyed_random import key_hashes

log = logging.getLogger("raygrad")

MOST_LOOKED = 10_000
"""Test images that are looked at, drawn by the hashes of their keys: they are read here, in this
process, which takes minutes for more."""

_BATCH = 256


def worst_keys(config: StudyConfig, number: int) -> list[str]:
    """Returns the keys of the test images that the scored network is wrong about, worst first.

    The loss that orders them is the cross-entropy at the first checkpoint. Images that cannot be
    decoded are left out.

    Args:
        config: The run's configuration.
        number: How many at most.

    Raises:
        ConfigError: There is no test image, or the network is wrong about none.
    """
    if number < 1:
        raise ConfigError(f"worst must be at least 1, got {number}. Leave it out for keys alone.")
    index, inputs = read_index(RunLayout(config.run).data), score_inputs(config)
    rows = index.rows("test")
    total = rows.num_rows
    if total > MOST_LOOKED:
        hashes = key_hashes(rows["key"].to_pylist())
        rows = rows.take(np.sort(np.argsort(hashes, kind="stable")[:MOST_LOOKED]))
    network = inputs.sources[0].build().eval()
    keys, losses = [], []
    waiting: list[tuple[str, int, np.ndarray]] = []

    def judge() -> None:
        pixels = torch.from_numpy(np.stack([one[2] for one in waiting])).permute(0, 3, 1, 2)
        labels = torch.tensor([one[1] for one in waiting])
        with torch.no_grad():
            logits = network(inputs.preprocess.normalize(pixels)).float()
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        for at in torch.nonzero(logits.argmax(1) != labels)[:, 0].tolist():
            keys.append(waiting[at][0])
            losses.append(float(loss[at]))
        waiting.clear()

    for example in read_rows(index, rows):
        try:
            waiting.append((example.key, example.label, inputs.preprocess.decode(example)))
        except DataError as error:
            log.warning("influence: %s is left out: %s", example.key, error)
        if len(waiting) == _BATCH:
            judge()
    if waiting:
        judge()
    if not keys:
        raise ConfigError(
            f"worst needs test images that the network is wrong about, got none of "
            f"{rows.num_rows}. Name images: --key."
        )
    order = np.lexsort((np.array(keys), -np.array(losses)))[:number]
    log.info(
        "influence: of %d test images, of which %d were looked at, the network is wrong about %d; "
        "the %d of the highest loss are taken",
        total, rows.num_rows, len(keys), len(order),
    )  # fmt: skip
    return [keys[at] for at in order]
