"""The scoring job beside what it could be at best, and beside its peers, over the same tars.

a: an actor's work against a bare loop that reads, decodes and scores in this process;
b: two actors against one, by the command line; c: from the command to the first committed part;
d: four checkpoints in one pass against one; e: the same norms by Opacus and by vmap in a plain loop
over the same tars; f: many tiny shards: driver memory, and what a shard costs.

    python benchmarks/scoring_job.py a d e --tars 'DIR/photos-*.tar' --network resnet18 --size 224

One thread computes in each way of a, d and e, timed by CPU time by default, which is fair on a
machine that others use too; every round runs each way once, in turn.
"""

import argparse
import copy
import glob
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import webdataset
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from gradient_norm_peers import PEERS
from interleaved import print_rates, time_interleaved
from recording import Record, recorded

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
        self.tars = sorted(glob.glob(args.tars))[: args.shards]
        self.batch, self.network, self.tiny = args.batch, args.network, args.tiny
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


def part_a(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints an actor's rate against the bare loop's."""
    ways = {"bare loop": case.bare(), "actor": case.actor(), "decode only": case.decode_only}
    seconds = time_interleaved(ways, rounds, clock)
    case.record.add(part="a", images=case.count, seconds=seconds)
    print_rates(seconds, case.count, "images", "bare loop")


def part_d(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints what four checkpoints in one pass cost against one."""
    ways = {"1 checkpoint": case.actor(), "4 checkpoints": case.actor(4),
            "decode only": case.decode_only}  # fmt: skip
    seconds = time_interleaved(ways, rounds, clock)
    case.record.add(part="d", images=case.count, seconds=seconds)
    print_rates(seconds, case.count, "images", "1 checkpoint")
    one, four, decode = (min(values) for values in seconds.values())
    bound = decode + 4 * (one - decode)
    print(f"4 compute + 1 decode: {bound:.2f} s of fastest rounds; one pass took {four:.2f} s")


def part_e(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints raygrad's rate against plain loops with the peers' norms."""
    ways = {"actor": case.actor()}
    for name in PEERS:
        try:
            ways[name] = case.peer(name)
            ways[name]()
        except Exception as refusal:  # noqa: BLE001 - a peer's refusal is a result
            ways.pop(name, None)
            print(f"{name}: refused: {str(refusal).splitlines()[0][:100]!r}")
    seconds = time_interleaved(ways, rounds, clock)
    case.record.add(part="e", images=case.count, seconds=seconds)
    print_rates(seconds, case.count, "images", "actor")


def command(case: Case, run: Path, *more: str) -> subprocess.Popen[bytes]:
    """Starts the command that scores the tars."""
    flags = ["score", "--data", *case.tars, "--network", case.network, "--fresh-weights",
             "--run", str(run), "--image-size", str(case.spec.height),
             "--num-classes", str(case.spec.num_classes),
             "--columns", *case.columns, "--batch-size", str(case.batch), *more]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "raygrad", *flags], env=environment, stderr=subprocess.DEVNULL
    )


def part_b(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints the rate of two actors against one, by the time that the shards took on them."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for actors in rates:
            run = case.folder / f"b-{number}-{actors}"
            limit = ("--min-actors", str(actors), "--max-actors", str(actors))
            assert command(case, run, *limit).wait() == 0
            parts = list((run / "scores").glob("*/part-*.parquet"))
            spent = [float(pq.read_schema(p).metadata[b"raygrad.time_s"]) for p in parts]
            rates[actors].append(actors * case.count / sum(spent))
    case.record.add(part="b", images_per_s=rates)
    for one, two in zip(*rates.values(), strict=True):
        print(f"1 actor {one:.1f} images/s, 2 actors {two:.1f}: {two / one:.2f} times")


def part_c(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints the time from the command to the first committed part."""
    for number in range(rounds):
        run = case.folder / f"c-{number}"
        start_s = time.perf_counter()
        process = command(case, run)
        while process.poll() is None and not list(run.glob("scores/*/part-*.parquet")):
            time.sleep(0.02)
        first_s = time.perf_counter() - start_s
        assert process.wait() == 0
        end_s = time.perf_counter() - start_s
        case.record.add(part="c", first_part_s=first_s, end_s=end_s)
        print(f"first part after {first_s:.1f} s, the end after {end_s:.1f}")


def part_f(case: Case, rounds: int, clock: Callable[[], float]) -> None:
    """Prints the driver's peak memory and the time for many shards of two images."""
    with tarfile.open(case.tars[0]) as tar:
        members = [
            (Path(m.name).name, tar.extractfile(m).read())  # type: ignore[union-attr]  # a plain file
            for m in list(tar)[:4]
        ]
    for count in case.tiny:
        folder = case.folder / f"tiny-{count}"
        folder.mkdir()
        for number in range(count):
            with tarfile.open(folder / f"t-{number:05d}.tar", "w") as out:
                for name, content in members:
                    member = tarfile.TarInfo(f"{number:05d}-{name}")
                    member.size = len(content)
                    out.addfile(member, io.BytesIO(content))
        tiny = copy.copy(case)
        tiny.tars = [str(folder / f"t-{{00000..{count - 1:05d}}}.tar")]
        start_s = time.perf_counter()
        process = command(tiny, case.folder / f"f-{count}")
        peak = 0
        while process.poll() is None:
            peak = max(peak, _peak_kb(process.pid))
            time.sleep(0.1)
        spent = time.perf_counter() - start_s
        assert process.wait() == 0
        case.record.add(part="f", shards=count, wall_s=spent, driver_mib=peak / 1024)
        print(f"{count} shards: {spent:.1f} s, driver at most {peak / 1024:.0f} MB", flush=True)


def _peak_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(t.split()[1]) for t in text.splitlines() if t.startswith("VmHWM")), 0)


PARTS = {"a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e, "f": part_f}


def main() -> None:
    """Parses the flags and runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--tars", required=True, help="a glob of tars with .cls labels")
    parser.add_argument("--shards", type=int, help="use the first so many only")
    parser.add_argument("--network", default="cnn5")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=32, help="what the network sees, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--norm", default="l2", choices=("l1", "l2", "linf"))
    parser.add_argument("--tiny", type=int, nargs="+", default=[10, 100, 1000, 10_000],
                        help="shards of part f")  # fmt: skip
    parser.add_argument("--peer-path", help="a folder with Opacus and BackPACK")
    args, record = recorded(parser, "What a scoring job costs beside its bare loop.")
    if args.peer_path:
        sys.path.append(args.peer_path)
    torch.set_num_threads(1)
    case = Case(args, record)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    print(f"{args.network}, {case.count} images in {len(case.tars)} tars, {args.clock} time")
    try:
        for part in args.parts:
            print(f"\n({part}) {PARTS[part].__doc__.splitlines()[0]}", flush=True)
            PARTS[part](case, args.rounds, clock)
    finally:
        shutil.rmtree(case.folder)


if __name__ == "__main__":
    main()
