"""Small shards and networks that the tests of scoring are made of; networks that misbehave too."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from raygrad.config import ScoreConfig
from raygrad.data import score_table
from raygrad.data.index import build_index, write_index
from raygrad.data.transforms import CropTransform
from raygrad.engine.score_task import Preprocess, ScoreTask
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource, weights_digest
from raygrad.training.preprocess import Normalize
from tests.data.making import example, jpeg, put

SIZE = 8
SPEC = ImageSpec(3, SIZE, SIZE, 3)
COLUMNS = ("grad_l2_weights", "grad_linf_all", "el2n")
TROUBLE = 250
"""The grey value of images that make a network misbehave."""


def net(spec):
    """A small network of the usual layers."""
    return nn.Sequential(
        nn.Conv2d(spec.channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * spec.height * spec.width, spec.num_classes),
    )


class Troubled(nn.Module):
    """Does something bad when it sees an image of the value `TROUBLE`."""

    def __init__(self, spec, act):
        super().__init__()
        self.net, self.act = net(spec), act

    def forward(self, images):
        if (images[:, 0].amin((1, 2)) > 0.9).any():
            self.act()
        return self.net(images)


def killer(spec):
    """Kills its process, every time."""
    return Troubled(spec, lambda: os.kill(os.getpid(), 9))


def killer_once(spec):
    """Kills its process, the first time only."""
    flag = Path(os.environ["RAYGRAD_TEST_FLAG"])

    def act():
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), 9)

    return Troubled(spec, act)


def hanger(spec):
    """Never comes back."""
    return Troubled(spec, lambda: time.sleep(3600))


def slow(spec):
    """Takes half a second a batch, so that a test can do something meanwhile."""

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(spec)

        def forward(self, images):
            if len(images) > 2:
                time.sleep(0.5)
            return self.net(images)

    return Slow()


def unbuildable(spec):
    """Builds on the driver, and nowhere else."""
    if os.environ.get("RAYGRAD_TEST_DRIVER") != str(os.getpid()):
        raise RuntimeError("this network cannot be built here")
    return net(spec)


def make_shards(folder, num_shards=4, num_examples=12, trouble=None, broken=()):
    """Writes shards of small JPEGs; one example of the shard `trouble` makes networks misbehave."""
    urls = []
    for shard in range(num_shards):
        members = []
        for at in range(num_examples):
            image = jpeg(100 * shard + at, (SIZE, SIZE))
            key = f"s{shard}-{at:03d}"
            if shard == trouble and at == num_examples // 2:
                image = grey(TROUBLE)
            if key in broken:
                image = image[: len(image) // 2]
            members += example(key, at % 3, "jpg", image)
        urls.append(put(folder, f"own-{shard:03d}.tar", members))
    return urls


def grey(value):
    """Returns a PNG of one value."""
    from tests.data.making import png

    return png(value, (SIZE, SIZE))


def make_task(folder, urls, network="net", checkpoints=(None,), **changes):
    """Indexes shards into a folder and returns the task that scores them."""
    data = str(folder / "data")
    write_index(data, build_index(urls, [], val_fraction=0.0))
    sources = tuple(
        NetworkSource(f"tests.engine.scoring_cases:{network}", SPEC, None, seed)
        for seed, _ in enumerate(checkpoints)
    )
    os.environ["RAYGRAD_TEST_DRIVER"] = str(os.getpid())
    values = {
        "data_url": data,
        "out_url": str(folder / "scores"),
        "networks": sources,
        "digests": tuple(weights_digest(source.build()) for source in sources),
        "preprocess": Preprocess(3, CropTransform(SIZE, SIZE), Normalize((0.0,) * 3, (1.0,) * 3)),
        "columns": COLUMNS,
        "provenance": {"network": network, "columns": ",".join(COLUMNS)},
        "batch_size": 5,
        **changes,
    }
    return ScoreTask(**values)


def make_config(**changes):
    """A configuration of the pool."""
    return ScoreConfig(**{"columns": COLUMNS, **changes})


def by_key(folder):
    """Returns the complete table's rows by key."""
    table = score_table.read_score_table(str(folder / "scores"))
    return {row["key"]: row for row in table.to_pylist()}


def assert_same_scores(found, expected, rel=2e-5):
    """Keys, labels and every score agree; scores up to rounding."""
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        for name, value in row.items():
            if isinstance(value, float):
                np.testing.assert_allclose(found[key][name], value, rtol=rel, atol=1e-6)
            else:
                assert found[key][name] == value, (key, name)


def rejects(folder):
    """Returns the reject table's rows."""
    return pq.read_table(folder / "scores" / "rejects.parquet").to_pylist()


def bare_scores(task, urls):
    """Scores the shards one image at a time with ordinary autograd: the oracle."""
    from raygrad.data.index import read_index
    from raygrad.data.reading import read_rows

    index = read_index(task.data_url)
    network = task.networks[0].build()
    rows = {}
    for one in read_rows(index, index.examples):
        image = torch.from_numpy(task.preprocess.decode(one).transpose(2, 0, 1).copy())
        logits = network(task.preprocess.normalize(image[None]))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([one.label]))
        names = [name for name, _ in network.named_parameters()]
        gradients = dict(
            zip(names, torch.autograd.grad(loss, list(network.parameters())), strict=True)
        )
        weights = [g.flatten() for name, g in gradients.items() if "bias" not in name]
        p = logits.softmax(1)[0]
        target = torch.nn.functional.one_hot(torch.tensor(one.label), 3)
        rows[one.key] = {
            "key": one.key,
            "shard": one.shard,
            "label": one.label,
            "grad_l2_weights": torch.cat(weights).norm().item(),
            "grad_linf_all": max(g.abs().max().item() for g in gradients.values()),
            "el2n": (p - target).norm().item(),
            "prediction": int(logits.argmax()),
            "correct": int(logits.argmax()) == one.label,
        }
    return rows
