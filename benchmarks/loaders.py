"""What decodes beside training: processes, a thread, or Ray Data's `streaming_split`.

Made photographs in shards on disk (see `streamed_loop.py`); every round each way trains one epoch
of the same network on all of them, in turn: out of memory, where nothing is decoded; with raygrad's
loader of one process; with one thread of the training process over the same reader; and with Ray
Data, whose map tasks decode whole shards with the same reader and whose iterator mixes batches
through a buffer. Wall time, and CPU time of this process and of all below it.

    OMP_NUM_THREADS=1 python benchmarks/loaders.py --images 4096 --rounds 7

Ray Data is given what is left: its batches come in an order of its own, which is no function of
(seed, epoch), in which no step can be gone on from, and which hangs on how many tasks run.
"""

import argparse
import dataclasses
import functools
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray
import torch
from beside import Timed
from recording import Record, recorded
from streamed_loop import Streamed, photographs, streamed, written
from torch import Tensor

from raygrad.config import TrainConfig
from raygrad.data.index import build_index
from raygrad.data.streaming import StreamedImages
from raygrad.data.transforms import CropTransform
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples
from raygrad.training.streamed_examples import PhotoCrops, StreamedExamples

import psutil  # isort: skip  # Ray brings its own

BATCH = 128
MIXED = 1024
"""Examples in Ray Data's buffer."""


@dataclasses.dataclass(frozen=True)
class SplitExamples(StreamedExamples):
    """Examples whose batches Ray Data makes, in its order."""

    shards: Any = None
    """The one iterator of a `streaming_split`."""
    epochs: threading.Semaphore = dataclasses.field(default_factory=lambda: threading.Semaphore(0))
    """How many may be begun: training asks for a step ahead, which is the next epoch's first."""
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Set when none will follow."""

    def near(self, device: torch.device) -> "SplitExamples":
        """Returns itself: labels are all the same, and on the CPU."""
        return self

    def steps(self, order: DataOrder, crops: PhotoCrops | None) -> Any:
        """Returns what gives a batch a step, whatever examples `order` would take."""
        return SplitSteps(self, order)


class SplitSteps:
    """Batches of one epoch of Ray Data after the other.

    Args:
        examples: Where they come from.
        order: How many steps an epoch has.
    """

    def __init__(self, examples: SplitExamples, order: DataOrder) -> None:
        self._examples, self._order = examples, order
        self._batches: Iterator[dict[str, Tensor]] = iter(())

    def take(self, step: int) -> Tensor:
        """Returns some images, uint8 `[b, C, H, W]`."""
        if step % self._order.steps_per_epoch == 0:
            assert next(self._batches, None) is None, "an epoch must have as many batches as steps"
            self._examples.epochs.acquire()
            if self._examples.ended.is_set():
                return torch.empty(0)
            self._batches = iter(
                self._examples.shards.iter_torch_batches(
                    batch_size=BATCH, prefetch_batches=2, local_shuffle_buffer_size=MIXED,
                    local_shuffle_seed=self._order.epoch_of(step),
                )
            )  # fmt: skip
        return next(self._batches)["image"]


def decoded(batch: dict[str, Any], images: StreamedImages) -> Iterator[dict[str, Any]]:
    """Yields the images of a shard, decoded and cut as in training."""
    crops = PhotoCrops("photo_crop", 1.0, 0)
    decode = functools.partial(crops.decode, images=images, epoch=0)
    for first, last in zip(batch["first"], batch["last"], strict=True):
        work = [
            (0, np.arange(at, min(at + BATCH, last)), decode) for at in range(first, last, BATCH)
        ]
        for _, pixels in images.batches(work):
            yield {"image": pixels}


def split_of(whole: StreamedExamples) -> SplitExamples:
    """Returns the same examples by way of Ray Data."""
    codes = whole.images.rows["shard"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    items = [{"first": first, "last": last} for first, last in itertools.pairwise(starts)]
    data = ray.data.from_items(items, override_num_blocks=len(items)).randomize_block_order()
    decode = functools.partial(decoded, images=whole.images)
    (shards,) = data.map_batches(decode, batch_size=1).streaming_split(1, equal=True)
    return SplitExamples(whole.images, whole.labels, shards=shards)


def tree_cpu_s() -> float:
    """Returns the CPU seconds of this process and all below it, those that ended among them."""
    here = psutil.Process()
    total = 0.0
    for process in (here, *here.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def measure(ways: dict[str, Timed], rounds: int, record: Record) -> None:
    """Prints and records the wall and CPU seconds of an epoch, each way after the other."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            busy_s, begun_s = tree_cpu_s(), time.perf_counter()
            run()
            wall[name].append(time.perf_counter() - begun_s)
            cpu[name].append(tree_cpu_s() - busy_s)
        last = {name: {"wall_s": wall[name][-1], "cpu_s": cpu[name][-1]} for name in ways}
        record.add(round=turn, counts=turn > 0, ways=last)
    print("| way | wall, s | times processes, wall | CPU, s | times processes, CPU |")
    print("|---|---|---|---|---|")
    for name in ways:
        cells = [f"{statistics.median(wall[name][1:]):.2f}", against(wall, name)]
        cells += [f"{statistics.median(cpu[name][1:]):.2f}", against(cpu, name)]
        print(f"| {name} | {' | '.join(cells)} |")


def against(seconds: dict[str, list[float]], name: str) -> str:
    """Returns the ratio of each round to that of processes: its median and range."""
    pairs = zip(seconds[name][1:], seconds["processes"][1:], strict=True)
    ratios = [own / base for own, base in pairs]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def same_images(one: StreamedExamples, other: StreamedExamples, config: TrainConfig) -> bool:
    """Tells whether two ways give the same images at every step of two epochs."""
    steps = [
        each.steps(DataOrder(len(each), BATCH, 0), PhotoCrops.of(config, 0))
        for each in (one, other)
    ]
    count = 2 * DataOrder(len(one), BATCH, 0).steps_per_epoch
    return all(torch.equal(*(each.take(step) for each in steps)) for step in range(count))


def main() -> None:
    """Parses the flags, makes the photographs and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size", type=int, default=64, help="pixels that they are cut to")
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--rounds", type=int, default=7)
    args, record = recorded(parser, "Which loader a streamed training is fed by.")
    torch.set_num_threads(1)
    config = TrainConfig(
        network=args.network, batch_size=BATCH, epochs=9999, patience=9999, learning_rate=1e-4,
        lr_decay_epochs=(), augment="photo_crop",
    )  # fmt: skip
    plain = dataclasses.replace(config, augment="none")
    made = list(itertools.islice(itertools.cycle(photographs(min(args.images, 1024))), args.images))
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory(prefix="loaders-") as folder:
        index = build_index(written(made, folder), [], val_fraction=0.0)
        whole = streamed(index, CropTransform.to_size(args.size), 1)
        memory = Examples(whole.between(0, len(whole)), whole.labels)
        split = split_of(whole)
        by_ray = Streamed(split, config, True)

        def of_ray() -> None:
            split.epochs.release()
            by_ray()

        threaded = dataclasses.replace(whole, processes=0)
        runs: dict[str, Callable[[], None]] = {
            "memory": Streamed(memory, plain, True),
            "processes": Streamed(whole, config, True),
            "a thread": Streamed(threaded, config, True),
            "Ray Data": of_ray,
        }
        ways = {name: Timed(run) for name, run in runs.items()}
        try:
            measure(ways, args.rounds, record)
        finally:
            for way in ways.values():
                way.go_on()
            split.ended.set()
            split.epochs.release()
        same = same_images(whole, threaded, config)
        print(f"a thread gives the images of processes, batch for batch, two epochs: {same}")
        record.add(same_images=same)
    ray.shutdown()


if __name__ == "__main__":
    main()
