"""Tars, a network and every way to score the one with the other: what `scoring_job` times."""

import argparse
import glob
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from gradient_norm_peers import PEERS
from recording import Record

from raygrad.data.decode import decode_image
from raygrad.data.index import Index, build_index, write_index
from raygrad.data.transforms import CropTransform
from raygrad.engine.score.actor import ShardWork
from raygrad.engine.score.task import Preprocess, ScoreTask
from raygrad.scoring import GradNormScorer
from raygrad.training.models import ImageSpec
from raygrad.training.outside import NetworkSource, weights_digest
from raygrad.training.preprocess import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Case:
    """Tars, a network and its preprocessing.

    Args:
        args: The flags.
    """

    def __init__(self, args: argparse.Namespace, record: Record) -> None:
        self.record = record
        self.tars = [str(Path(t).resolve()) for t in sorted(glob.glob(args.tars))[: args.shards]]
        self.batch, self.network, self.tiny = args.batch, args.network, args.tiny
        self.trees = dict(tree.split("=", 1) for tree in args.trees)
        self.answer_s = args.answer_s
        self.norm, self.columns = args.norm, (f"grad_{args.norm}_weights",)
        self.spec = ImageSpec(3, args.size, args.size, args.classes)
        stored = Image.open(io.BytesIO(self._first_image())).size
        same = stored == (args.size, args.size)
        self.transform = None if same else CropTransform(args.size * 8 // 7, args.size)
        self.normalize = Normalize(MEAN, STD)
        self.folder = Path(tempfile.mkdtemp(prefix="scoring-job-"))
        self.index: Index = build_index(self.tars, [], val_fraction=0.0)
        write_index(str(self.folder / "data"), self.index)
        self.count = self.index.examples.num_rows

    def task(self, checkpoints: int) -> ScoreTask:
        """Returns the task of an actor, writing into a folder of its own."""
        sources = tuple(
            NetworkSource(self.network, self.spec, None, seed) for seed in range(checkpoints)
        )
        return ScoreTask(
            data_url=str(self.folder / "data"),
            out_url=str(self.folder / f"scores-{checkpoints}"),
            networks=sources,
            digests=tuple(weights_digest(source.build()) for source in sources),
            preprocess=Preprocess(3, self.transform, self.normalize),
            columns=self.columns,
            provenance={"benchmark": "scoring_job"},
            batch_size=self.batch,
        )

    def actor(self, checkpoints: int = 1) -> Callable[[], None]:
        """The work of an actor on every shard, its parts committed, as in the job."""
        task = self.task(checkpoints)
        work = ShardWork(task)

        def run() -> None:
            shutil.rmtree(task.out_url, ignore_errors=True)
            for shard in self.index.shards["name"].to_pylist():
                status = work.score(shard, lambda *_: None)
                assert status.kind == "done", status

        return run

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Reads the tars with webdataset and decodes, one thread, in batches."""
        images: list[np.ndarray] = []
        labels: list[int] = []
        for sample in webdataset.WebDataset(self.tars, shardshuffle=False):
            image = next(v for k, v in sample.items() if k.lower() in ("jpg", "jpeg", "png"))
            pixels = (
                decode_image(image, channels=3)
                if self.transform is None
                else self.transform.score(image, channels=3)
            )
            images.append(pixels.transpose(2, 0, 1))
            labels.append(int(sample["cls"]))
            if len(labels) == self.batch:
                yield self._inputs(images, labels)
                images, labels = [], []
        if labels:
            yield self._inputs(images, labels)

    def bare(self) -> Callable[[], None]:
        """A loop by hand: read, decode, score; nothing committed, nothing checked."""
        scorer = GradNormScorer(self.model(), self.columns)

        def run() -> None:
            found = [scorer.score(*batch).norms[self.columns[0]] for batch in self.batches()]
            assert sum(len(values) for values in found) == self.count

        return run

    def peer(self, name: str) -> Callable[[], None]:
        """A loop by hand whose norms are a peer's; it is made anew for each batch's tensors."""
        model = self.model()
        images, labels = next(self.batches())
        images, labels = images.clone(), labels.clone()
        step = PEERS[name](model, images, labels, self.norm)

        def run() -> None:
            for inputs, targets in self.batches():
                if len(targets) == len(labels):
                    # The step computes on these tensors: no set-up of a peer is counted.
                    images.copy_(inputs)
                    labels.copy_(targets)
                    step()

        return run

    def decode_only(self) -> None:
        """Reads and decodes, and nothing else."""
        assert sum(len(labels) for _, labels in self.batches()) == self.count

    def model(self) -> nn.Module:
        """The network with its weights."""
        return NetworkSource(self.network, self.spec, None, 0).build().eval()

    def _inputs(self, images: list[np.ndarray], labels: list[int]) -> tuple[Tensor, Tensor]:
        return self.normalize(torch.from_numpy(np.stack(images))), torch.tensor(labels)

    def _first_image(self) -> bytes:
        with tarfile.open(self.tars[0]) as tar:
            for member in tar:
                if member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                    return tar.extractfile(member).read()  # type: ignore[union-attr]  # a plain file
        raise SystemExit(f"no image in {self.tars[0]}")
