"""The streamed training loop against decoding alone and training alone; subsets against copies.

Photographs are made, JPEGs of smooth noise of about 375 x 300 pixels, and written as shards to a
folder, on disk or S3. Every round takes the same images in each way, in turn: decoded by one
process beside this one, with nothing trained; trained on by this process, out of memory; both at
the same time, but apart, each as if the other were not there; streamed, where the one is given what
the other decodes. And a random tenth of them, by ranges and from an exported copy.

A loop of two processes cannot be faster than both apart: two that compute on one machine share its
caches, its memory and its turbo. How much slower it is, is what handing over and waiting for each
other take. Processes beside this one decode ahead; they stand still (SIGSTOP) while another way is
timed, so that each round pays for as many batches as it uses and for no other way's.
"""

import dataclasses
import functools
import io
import itertools
import multiprocessing
import statistics
import tarfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from beside import Timed
from interleaved import time_interleaved
from PIL import Image
from recording import Record

from raygrad.config import TrainConfig
from raygrad.data.export import export_subset
from raygrad.data.index import Index, build_index
from raygrad.data.streaming import GROUP_BYTES, StreamedImages
from raygrad.data.transforms import CropTransform
from raygrad.storage import files
from raygrad.training.examples import Examples
from raygrad.training.loop import TrainingLoop
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.preprocess import Normalize
from raygrad.training.streamed_examples import StreamedExamples

SHARE = 0.1
"""Of the subset."""


class Streamed:
    """One way to take the images of some steps, so many a call.

    Args:
        examples: The images.
        config: The network, and how it is trained.
        trains: Whether it is; else images are decoded alone.
        steps: Of a call; by default an epoch.
    """

    def __init__(
        self,
        examples: Examples | StreamedExamples,
        config: TrainConfig,
        trains: bool,
        steps: int | None = None,
    ) -> None:
        channels, height, width = examples.image_shape
        spec = ImageSpec(channels, height, width, 10)
        few = Examples(
            torch.zeros(1, *examples.image_shape, dtype=torch.uint8), torch.zeros(1).long()
        )
        normalize = Normalize((0.5,) * channels, (0.25,) * channels)
        built = build_network(config.network, spec, 0)
        self._loop = TrainingLoop(
            built, config, normalize, examples, few, order_seed=0, steps_per_epoch=steps
        )
        self._trains, self._step = trains, 0

    def __call__(self) -> None:
        """Does the steps."""
        if self._trains:
            self._loop._run_epoch(None)
            return
        for _ in range(self._loop.steps_per_epoch):
            self._loop._batches.take(self._step)
            self._step += 1


class Apart:
    """Trains in this process while another decodes as many images, which are handed to nobody.

    Args:
        train: Some steps of training out of memory.
        whole: The images that are decoded.
        config: As of `Streamed`.
        steps: As of `Streamed`.
    """

    def __init__(
        self, train: Callable[[], None], whole: StreamedExamples, config: TrainConfig, steps: int
    ) -> None:
        self._train = train
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        alone = dataclasses.replace(whole, processes=0)
        self._process = context.Process(
            target=_decode_when_told, args=(theirs, alone, config, steps)
        )
        self._process.start()
        theirs.close()  # so that its end is an error here
        self._pipe.recv()

    @property
    def pid(self) -> int:
        """The process that decodes."""
        assert self._process.pid is not None
        return self._process.pid

    def __call__(self) -> None:
        """Does the steps in both."""
        self._pipe.send(True)
        self._train()
        self._pipe.recv()

    def end(self) -> None:
        """Ends the process beside."""
        self._pipe.send(False)
        self._process.join()


def _decode_when_told(
    pipe: Connection, whole: StreamedExamples, config: TrainConfig, steps: int
) -> None:
    torch.set_num_threads(1)
    decode = Streamed(whole, config, False, steps)
    pipe.send(True)
    while pipe.recv():
        decode()
        pipe.send(True)


def measure_streamed(
    urls: list[str],
    count: int,
    size: int,
    network: str,
    steps: int,
    rounds: int,
    clock: str,
    parts: list[str],
    held_bytes: int,
    record: Record,
) -> None:
    """Prints and records the streamed loop's rate, and a subset's, for each folder.

    By CPU time, which says nothing of what is done side by side, the subset alone is measured, and
    decoded in this process.

    Args:
        urls: Folders that photographs are written to, on disk or S3.
        count: Photographs; of more than 1,024 each comes several times. Encoded they should be more
            than is read at a time (GROUP_BYTES), or several epochs are read at once.
        size: Pixels that they are cut to.
        network: What is trained.
        steps: Of a round.
        rounds: Timed rounds of each way.
        clock: wall or cpu.
        parts: loop, subset or both.
        held_bytes: Encoded images of a subset that are read at a time and held. One that takes less
            is read in the round that is not counted, and not again.
        record: Where every repetition goes.
    """
    made = list(itertools.islice(itertools.cycle(photographs(min(count, 1024))), count))
    transform = CropTransform.to_size(size)
    config = TrainConfig(
        network=network, epochs=9999, patience=9999, learning_rate=1e-4, lr_decay_epochs=(),
        augment="photo_crop",
    )  # fmt: skip
    for url in urls:
        index = build_index(written(made, files.join(url, "shards")), [], val_fraction=0.0)
        whole = streamed(index, transform, int(clock == "wall"))
        if clock == "wall" and "loop" in parts:
            measure_loop(url, whole, config, steps, rounds, record)
        if "subset" in parts:
            few = dataclasses.replace(whole, group_bytes=held_bytes)
            measure_subset(url, index, few, config, rounds, clock, record)


def measure_loop(
    url: str,
    whole: StreamedExamples,
    config: TrainConfig,
    steps: int,
    rounds: int,
    record: Record,
) -> None:
    """Measures decoding alone, training alone, both apart, and both beside each other."""
    memory = Examples(whole.between(0, len(whole)), whole.labels)
    plain = dataclasses.replace(config, augment="none")
    apart = Apart(Streamed(memory, plain, True, steps), whole, config, steps)
    ways = {
        "decode alone": Timed(Streamed(whole, config, False, steps)),
        "train alone": Timed(Streamed(memory, plain, True, steps)),
        "both apart": Timed(apart, [apart.pid]),
        "streamed loop": Timed(Streamed(whole, config, True, steps)),
    }
    try:
        seconds = time_interleaved(ways, rounds)
    finally:
        for way in ways.values():
            way.go_on()
        apart.end()
    decode, train, both, loop = (seconds[way] for way in ways)
    of_slower = [max(d, t) / s for d, t, s in zip(decode, train, loop, strict=True)]
    of_apart = [b / s for b, s in zip(both, loop, strict=True)]
    tell(url, "streamed loop, of the slower of decode alone and train alone", seconds, of_slower)
    tell(url, "streamed loop, of both apart", seconds, of_apart)
    for name, way in ways.items():
        here, beside = (statistics.median(column) for column in zip(*way.cpu_s[1:], strict=True))
        print(f"  {name}: {here:.2f} CPU s in this process, {beside:.2f} beside it")
    cpu_s = {name: way.cpu_s[1:] for name, way in ways.items()}
    record.add(
        url=url.split(":")[0], measured="loop", images=len(whole), steps=steps, seconds=seconds,
        cpu_s=cpu_s,
    )  # fmt: skip


def measure_subset(
    url: str,
    index: Index,
    whole: StreamedExamples,
    config: TrainConfig,
    rounds: int,
    clock: str,
    record: Record,
) -> None:
    """Measures a random tenth, by ranges and from a copy; epochs are short: three a round."""
    count = round(SHARE * len(whole))
    rows = np.sort(np.random.default_rng(0).choice(len(whole), count, replace=False))
    keys = whole.images.rows.take(rows)["key"].to_pylist()
    copied = export_subset(index, keys, files.join(url, "copy"))
    assert whole.images.transform is not None
    copy_index = build_index(copied, [], val_fraction=0.0)
    held = {"processes": whole.processes, "group_bytes": whole.group_bytes}
    copy = streamed(copy_index, whole.images.transform, **held)
    labels = whole.labels[torch.from_numpy(rows)]
    ranged = StreamedExamples(whole.images.chosen(rows), labels, **held)
    ways = {
        name: Timed(functools.partial(_thrice, Streamed(examples, config, trains=True)))
        for name, examples in (("by ranges", ranged), ("exported copy", copy))
    }
    now = time.perf_counter if clock == "wall" else time.process_time
    try:
        seconds = time_interleaved(ways, rounds, now)
    finally:
        for way in ways.values():
            way.go_on()
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    tell(url, f"a subset of {SHARE:.0%} by ranges, times its exported copy", seconds, ratios)
    num_bytes = int(ranged.images.rows["size"].to_numpy().sum())
    print(f"  {count} images of {num_bytes >> 20} MiB; {whole.group_bytes >> 20} MiB are held")
    record.add(
        url=url.split(":")[0], measured="subset", images=count, clock=clock, seconds=seconds,
        subset_bytes=num_bytes, held_bytes=whole.group_bytes,
        cpu_s={name: way.cpu_s[1:] for name, way in ways.items()},
    )  # fmt: skip


def _thrice(run: Callable[[], None]) -> None:
    for _ in range(3):
        run()


def tell(url: str, what: str, seconds: dict[str, list[float]], ratios: list[float]) -> None:
    """Prints medians, and the median ratio with its spread."""
    place = "S3" if files.is_s3(url) else "disk"
    medians = ", ".join(f"{way} {statistics.median(s):.2f} s" for way, s in seconds.items())
    spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
    print(f"{place}: {what}: {spread}, n = {len(ratios)} ({medians})")


def streamed(
    index: Index, transform: CropTransform, processes: int, group_bytes: int = GROUP_BYTES
) -> StreamedExamples:
    """Returns all images of an index, streamed by so many processes beside this one."""
    rows = index.rows("train").combine_chunks()
    images = StreamedImages(index, rows, (3, transform.crop, transform.crop), transform)
    labels = torch.from_numpy(rows["label"].to_numpy().copy())
    return StreamedExamples(images, labels, processes, group_bytes)


def photographs(count: int) -> list[bytes]:
    """Returns JPEGs of smooth noise of several sizes."""
    made = []
    for number in range(count):
        generator = np.random.default_rng(number)
        small = Image.fromarray(generator.integers(0, 256, (24, 30, 3), dtype=np.uint8))
        size = (int(generator.integers(340, 420)), int(generator.integers(280, 340)))
        stream = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        made.append(stream.getvalue())
    return made


def written(made: list[bytes], url: str, a_shard: int = 128) -> list[str]:
    """Writes photographs as shards into a folder and returns their URLs."""
    urls = []
    for at in range(0, len(made), a_shard):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for number, image in enumerate(made[at : at + a_shard], at):
                for name, data in ((f"{number:06d}.jpg", image), (f"{number:06d}.cls", b"0")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        urls.append(files.join(url, f"train-{at // a_shard:04d}.tar"))
        if not files.is_s3(url):
            Path(url).mkdir(parents=True, exist_ok=True)
        files.write_bytes(urls[-1], content.getvalue())
    return urls
