"""Small shards and networks that the tests of scoring are made of, and faults to put into them."""

import ctypes
import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from raygrad.config import ScoreConfig
from raygrad.data.index import build_index, write_index
from raygrad.data.transforms import CropTransform
from raygrad.engine.score.task import Preprocess, ScoreTask
from raygrad.errors import StorageRefusedError
from raygrad.runs import score_table
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource, weights_digest
from raygrad.training.preprocess import Normalize
from tests.data.making import example, jpeg, put

SIZE = 8
SPEC = ImageSpec(3, SIZE, SIZE, 3)
COLUMNS = ("grad_l2_weights", "grad_linf_all", "el2n")


def net(spec):
    """A small network of the usual layers."""
    return nn.Sequential(
        nn.Conv2d(spec.channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * spec.height * spec.width, spec.num_classes),
    )


@dataclass(frozen=True)
class Faulty(Preprocess):
    """Prepares images, and does harm to the actor when it comes to one of them."""

    key: str = ""
    """The example at which it happens."""
    harm: str = ""
    """kill: the process dies; hang: nothing in it moves any more; full: it can write no part of a
    shard that comes after; device: its GPU fails; refused: storage refuses, twice."""
    flag: str = ""
    """A file that is made when it happens; while it is there nothing happens."""
    delay_s: float = 0.0
    """What every image takes, so that a test can do something meanwhile."""

    def decode(self, example):
        time.sleep(self.delay_s)
        self._fail(example)
        if example.key == self.key and not (self.flag and Path(self.flag).exists()):
            if self.flag:
                Path(self.flag).write_text(str(os.getpid()))
            if self.harm == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.harm == "hang":
                ctypes.PyDLL(None).sleep(3600)  # holds the interpreter's lock, as bad C code does
            elif self.harm == "full":
                fill_up(example.shard)
            elif self.harm == "device":
                raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return super().decode(example)

    def _fail(self, example):
        """Raises in a way that does not depend on one flag."""
        if self.harm == "refused" and example.key == self.key:
            for at in range(2):
                flag = Path(f"{self.flag}-{at}")
                if not flag.exists():
                    flag.write_text("")
                    raise StorageRefusedError("storage must accept the request, got ExpiredToken")
        elif self.harm == "bad node" and is_bad_node():
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


def is_bad_node():
    """Tells whether this process is of the node that `RAYGRAD_TEST_BAD_NODE` names in a file."""
    import ray

    bad = Path(os.environ["RAYGRAD_TEST_BAD_NODE"])
    return bad.exists() and bad.read_text() == ray.get_runtime_context().get_node_id()


def fill_up(shard):
    """Makes writing what it is on a disk that is full, from the part of a shard on.

    The shard before it is written while this one is read.
    """
    write = score_table.write_table

    def write_table(url, table):
        if url >= score_table.part_url(url.rsplit("/", 1)[0], shard):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(url, table)

    score_table.write_table = write_table


def faulty(**fields):
    """Returns the preprocessing of these tests with a fault."""
    return Faulty(3, CropTransform(SIZE, SIZE), Normalize((0.0,) * 3, (1.0,) * 3), **fields)


def unbuildable(spec):
    """Builds on the driver, and nowhere else."""
    if os.environ.get("RAYGRAD_TEST_DRIVER") != str(os.getpid()):
        raise RuntimeError("this network cannot be built here")
    return net(spec)


def unbuildable_on_the_bad_node(spec):
    """Builds everywhere but there."""
    if os.environ.get("RAYGRAD_TEST_DRIVER") != str(os.getpid()) and is_bad_node():
        raise ImportError("no module named own_layers")
    return net(spec)


def refused_on_the_bad_node(spec):
    """Builds everywhere but there, where storage refuses a clock that is far off."""
    if os.environ.get("RAYGRAD_TEST_DRIVER") != str(os.getpid()) and is_bad_node():
        raise StorageRefusedError("storage must accept the request, got RequestTimeTooSkewed")
    return net(spec)


def make_shards(folder, num_shards=4, num_examples=12, broken=(), first=0):
    """Writes shards of small JPEGs, keys `s<shard>-<number>`; those `broken` are cut in half."""
    urls = []
    for shard in range(first, first + num_shards):
        members = []
        for at in range(num_examples):
            image = jpeg(100 * shard + at, (SIZE, SIZE))
            key = f"s{shard}-{at:03d}"
            if key in broken:
                image = image[: len(image) // 2]
            members += example(key, at % 3, "jpg", image)
        urls.append(put(folder, f"own-{shard:03d}.tar", members))
    return urls


def make_task(folder, urls, network="net", checkpoints=(None,), **changes):
    """Indexes shards into a folder and returns the task that scores them."""
    data = str(folder / "data")
    write_index(data, build_index(urls, [], val_fraction=0.0))
    sources = tuple(
        NetworkSource(f"tests.engine.score.scoring_cases:{network}", SPEC, None, seed)
        for seed, _ in enumerate(checkpoints)
    )
    os.environ["RAYGRAD_TEST_DRIVER"] = str(os.getpid())
    values = {
        "data_url": data,
        "out_url": str(folder / "scores"),
        "networks": sources,
        "digests": tuple(weights_digest(source.build()) for source in sources),
        "preprocess": faulty(),
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


def bare_scores(task, skip=()):
    """Scores the index's examples one at a time with ordinary autograd: the oracle."""
    from raygrad.data.index import read_index
    from raygrad.data.reading import read_rows

    index = read_index(task.data_url)
    network = task.networks[0].build()
    rows = {}
    for one in read_rows(index, index.examples):
        if one.key in skip:
            continue
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
