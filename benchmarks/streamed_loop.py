"""The streamed training loop against decoding alone and training alone; subsets against copies.

Photographs are made, JPEGs of smooth noise of about 375 x 300 pixels, and written as shards to a
folder, on disk or S3. Every round takes the same images in each way, in turn: decoded by one
process beside this one, with nothing trained; trained on by this process, out of memory; streamed,
which is both at the same time. And a random tenth of them, by ranges and from an exported copy.
"""

import dataclasses
import io
import statistics
import tarfile
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
        network: A network by name.
        config: How it is trained.
        trains: Whether it is; else images are decoded alone.
    """

    def __init__(
        self, examples: Examples | StreamedExamples, network: str, config: TrainConfig, trains: bool
    ) -> None:
        channels, height, width = examples.image_shape
        spec = ImageSpec(channels, height, width, 10)
        few = Examples(
            torch.zeros(1, *examples.image_shape, dtype=torch.uint8), torch.zeros(1).long()
        )
        normalize = Normalize((0.5,) * channels, (0.25,) * channels)
        built = build_network(network, spec, 0)
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
    batch_size: int,
    rounds: int,
    record: Record,
) -> None:
    """Prints and records the streamed loop's rate, and a subset's, for each folder.

    Args:
        urls: Folders that photographs are written to, on disk or S3.
        count: Photographs.
        size: Pixels that they are cut to.
        network: What is trained.
        batch_size: Images a step.
        rounds: Timed rounds of each way.
        record: Where every repetition goes.
    """
    made = photographs(count)
    transform = CropTransform.to_size(size)
    config = TrainConfig(
        network=network, batch_size=batch_size, epochs=9999, patience=9999, learning_rate=1e-4,
        lr_decay_epochs=(), augment="photo_crop",
    )  # fmt: skip
    for url in urls:
        index = build_index(written(made, files.join(url, "shards")), [], val_fraction=0.0)
        whole = streamed(index, transform)
        plain = dataclasses.replace(config, augment="none")
        memory = Examples(whole.between(0, count), whole.labels)
        ways: dict[str, Callable[[], object]] = {
            "decode alone": Streamed(whole, network, config, trains=False),
            "train alone": Streamed(memory, network, plain, trains=True),
            "streamed loop": Streamed(whole, network, config, trains=True),
        }
        seconds = time_interleaved(ways, rounds)
        ratios = [
            max(decode, train) / both
            for decode, train, both in zip(*(seconds[way] for way in ways), strict=True)
        ]
        tell(url, "streamed loop, of the slower of decode alone and train alone", seconds, ratios)
        record.add(url=url.split(":")[0], measured="loop", images=count, seconds=seconds)
        del ways
        rows = np.sort(np.random.default_rng(0).choice(count, round(SHARE * count), replace=False))
        keys = whole.images.rows.take(rows)["key"].to_pylist()
        copied = export_subset(index, keys, files.join(url, "copy"))
        copy = streamed(build_index(copied, [], val_fraction=0.0), transform)
        labels = whole.labels[torch.from_numpy(rows)]
        ranged = StreamedExamples(whole.images.chosen(rows), labels, whole.processes)
        ways = {
            "by ranges": Streamed(ranged, network, config, trains=True),
            "exported copy": Streamed(copy, network, config, trains=True),
        }
        # Epochs of a tenth are short: three of them a round.
        thrice = {way: lambda run=run: [run() for _ in range(3)] for way, run in ways.items()}
        seconds = time_interleaved(thrice, rounds)
        ratios = [
            a / b for a, b in zip(seconds["by ranges"], seconds["exported copy"], strict=True)
        ]
        tell(url, f"a subset of {SHARE:.0%} by ranges, times its exported copy", seconds, ratios)
        record.add(url=url.split(":")[0], measured="subset", images=len(rows), seconds=seconds)
        del ways, thrice


def tell(url: str, what: str, seconds: dict[str, list[float]], ratios: list[float]) -> None:
    """Prints medians, and the median ratio with its spread."""
    place = "S3" if files.is_s3(url) else "disk"
    medians = ", ".join(f"{way} {statistics.median(s):.2f} s" for way, s in seconds.items())
    spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
    print(f"{place}: {what}: {spread}, n = {len(ratios)} ({medians})")


def streamed(index: Index, transform: CropTransform) -> StreamedExamples:
    """Returns all images of an index, streamed by one process beside this one."""
    rows = index.rows("train").combine_chunks()
    images = StreamedImages(index, rows, (3, transform.crop, transform.crop), transform)
    return StreamedExamples(images, torch.from_numpy(rows["label"].to_numpy().copy()), 1)


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
