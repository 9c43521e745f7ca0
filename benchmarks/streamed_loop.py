"""The streamed training loop against decoding alone and training alone; subsets against copies.

Photographs are made, JPEGs of smooth noise of about 375 x 300 pixels, and written as shards to a
folder, on disk or S3. Every round takes the same images in each way, in turn: decoded by one
process beside this one, with nothing trained; trained on by this process, out of memory; streamed,
which is both at the same time. And a random tenth of them, by ranges and from an exported copy.
"""

import dataclasses
import functools
import io
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleaved import time_interleaved
from PIL import Image
from recording import Record

from raygrad.config import TrainConfig
from raygrad.data.export import export_subset
from raygrad.data.index import Index, build_index
from raygrad.data.streaming import StreamedImages
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
    """One way to take the images of an epoch, an epoch a call.

    Args:
        examples: The images.
        config: The network, and how it is trained.
        trains: Whether it is; else images are decoded alone.
    """

    def __init__(
        self, examples: Examples | StreamedExamples, config: TrainConfig, trains: bool
    ) -> None:
        channels, height, width = examples.image_shape
        spec = ImageSpec(channels, height, width, 10)
        few = Examples(
            torch.zeros(1, *examples.image_shape, dtype=torch.uint8), torch.zeros(1).long()
        )
        normalize = Normalize((0.5,) * channels, (0.25,) * channels)
        built = build_network(config.network, spec, 0)
        self._loop = TrainingLoop(built, config, normalize, examples, few, order_seed=0)
        self._trains, self._step = trains, 0

    def __call__(self) -> None:
        """Goes through an epoch."""
        if self._trains:
            self._loop._run_epoch(None)
            return
        for _ in range(self._loop.steps_per_epoch):
            self._loop._batches.take(self._step)
            self._step += 1


def measure_streamed(
    urls: list[str],
    count: int,
    size: int,
    network: str,
    rounds: int,
    clock: str,
    record: Record,
) -> None:
    """Prints and records the streamed loop's rate, and a subset's, for each folder.

    By CPU time, which says nothing of what is done side by side, the subset alone is measured, and
    decoded in this process.

    Args:
        urls: Folders that photographs are written to, on disk or S3.
        count: Photographs.
        size: Pixels that they are cut to.
        network: What is trained.
        rounds: Timed rounds of each way.
        clock: wall or cpu.
        record: Where every repetition goes.
    """
    made = photographs(count)
    transform = CropTransform.to_size(size)
    config = TrainConfig(
        network=network, epochs=9999, patience=9999, learning_rate=1e-4, lr_decay_epochs=(),
        augment="photo_crop",
    )  # fmt: skip
    for url in urls:
        index = build_index(written(made, files.join(url, "shards")), [], val_fraction=0.0)
        whole = streamed(index, transform, int(clock == "wall"))
        if clock == "wall":
            measure_loop(url, whole, config, rounds, record)
        measure_subset(url, index, whole, config, rounds, clock, record)


def measure_loop(
    url: str, whole: StreamedExamples, config: TrainConfig, rounds: int, record: Record
) -> None:
    """Measures decoding alone, training alone, and both beside each other."""
    memory = Examples(whole.between(0, len(whole)), whole.labels)
    plain = dataclasses.replace(config, augment="none")
    ways = {
        "decode alone": Streamed(whole, config, trains=False),
        "train alone": Streamed(memory, plain, trains=True),
        "streamed loop": Streamed(whole, config, trains=True),
    }
    seconds = time_interleaved(ways, rounds)
    ratios = [
        max(decode, train) / both
        for decode, train, both in zip(*(seconds[way] for way in ways), strict=True)
    ]
    tell(url, "streamed loop, of the slower of decode alone and train alone", seconds, ratios)
    record.add(url=url.split(":")[0], measured="loop", images=len(whole), seconds=seconds)


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
    copy = streamed(copy_index, whole.images.transform, whole.processes)
    labels = whole.labels[torch.from_numpy(rows)]
    ranged = StreamedExamples(whole.images.chosen(rows), labels, whole.processes)
    runs = [Streamed(examples, config, trains=True) for examples in (ranged, copy)]
    names = ("by ranges", "exported copy")
    ways = {name: functools.partial(_thrice, run) for name, run in zip(names, runs, strict=True)}
    now = time.perf_counter if clock == "wall" else time.process_time
    seconds = time_interleaved(ways, rounds, now)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    tell(url, f"a subset of {SHARE:.0%} by ranges, times its exported copy", seconds, ratios)
    record.add(url=url.split(":")[0], measured="subset", images=count, clock=clock, seconds=seconds)


def _thrice(run: Callable[[], None]) -> None:
    for _ in range(3):
        run()


def tell(url: str, what: str, seconds: dict[str, list[float]], ratios: list[float]) -> None:
    """Prints medians, and the median ratio with its spread."""
    place = "S3" if files.is_s3(url) else "disk"
    medians = ", ".join(f"{way} {statistics.median(s):.2f} s" for way, s in seconds.items())
    spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
    print(f"{place}: {what}: {spread}, n = {len(ratios)} ({medians})")


def streamed(index: Index, transform: CropTransform, processes: int) -> StreamedExamples:
    """Returns all images of an index, streamed by so many processes beside this one."""
    rows = index.rows("train").combine_chunks()
    images = StreamedImages(index, rows, (3, transform.crop, transform.crop), transform)
    return StreamedExamples(images, torch.from_numpy(rows["label"].to_numpy().copy()), processes)


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
