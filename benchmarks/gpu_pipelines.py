"""Whole ways on one GPU, for `gpu.py`: tars to parts, training steps, commands of users."""

import importlib.util
import io
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_networks import CASES, computing
from raygrad.scoring import GradNormScorer
from raygrad.scoring.verdicts import Verdicts

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Left(Protocol):
    """A stage's time."""

    def left_s(self) -> float:
        """Returns the seconds left."""


def tar_rows(device: torch.device, quick: bool, budget: Left) -> Iterator[dict[str, Any]]:
    """Yields the rate from tars of JPEGs to parts on disk beside the model's own rate.

    The tars are made here, of smooth random photographs of 500 x 375 pixels.
    """
    name = "cnn5" if quick else "resnet50"
    side, batch = (32, 8) if quick else (224, 128)
    shards, per_shard = (2, 16) if quick else (8, 1024)
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder, computing("tf32", device):
        tars = [write_tar(Path(folder), shard, per_shard) for shard in range(shards)]
        model = case.model(device)
        scorer = GradNormScorer(model, ("grad_l2_weights",))
        images = torch.randn(batch, 3, side, side, device=device)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
        own = own_rate(
            lambda: scorer.score(images, labels, later=Verdicts()),
            batch,
            device,
            2 if quick else 20,
        )
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
            list(pool.map(abs, range(2 * (os.cpu_count() or 1))))  # processes are there
            busy_s, start_s = 0.0, time.perf_counter()
            for shard, pixels in enumerate(decoded_ahead(pool, tars, side)):
                busy_s += score_shard(scorer, pixels, batch, device, Path(folder) / f"{shard}.npy")
                if budget.left_s() < 0:
                    shards = shard + 1
                    break
            wall_s = time.perf_counter() - start_s
    rate = shards * per_shard / wall_s
    yield {"network": name, "images": shards * per_shard, "cores": os.cpu_count(),
           "images_per_s": rate, "own_images_per_s": own, "of_own_rate": rate / own,
           "device_busy_share": busy_s / wall_s}  # fmt: skip


def write_tar(folder: Path, shard: int, count: int) -> Path:
    """Writes a tar of JPEGs; they share a few contents, and each is decoded all the same."""
    from PIL import Image

    rng = np.random.default_rng(shard)
    encoded = []
    for _ in range(min(count, 16)):
        small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    path = folder / f"{shard:04}.tar"
    with tarfile.open(path, "w") as tar:
        for at in range(count):
            member = tarfile.TarInfo(f"{shard:04}-{at:06}.jpg")
            member.size = len(encoded[at % len(encoded)])
            tar.addfile(member, io.BytesIO(encoded[at % len(encoded)]))
    return path


def decoded_ahead(pool: ProcessPoolExecutor, tars: list[Path], side: int) -> Iterator[np.ndarray]:
    """Yields each shard's pixels, ``[N, side, side, 3]``; the next one is decoded meanwhile."""

    def start(path: Path) -> list[Any]:
        with tarfile.open(path) as tar:
            blobs = [tar.extractfile(member).read() for member in tar]  # type: ignore[union-attr]  # plain files
        chunks = [blobs[at : at + 32] for at in range(0, len(blobs), 32)]
        return [pool.submit(decode_chunk, chunk, side) for chunk in chunks]

    waiting = start(tars[0])
    for following in [*tars[1:], None]:
        ahead = start(following) if following else []
        yield np.concatenate([future.result() for future in waiting])
        waiting = ahead


def decode_chunk(blobs: list[bytes], side: int) -> np.ndarray:
    """Decodes and scales some images, as scoring does."""
    from PIL import Image

    from raygrad.data.decode import decode_image

    rows = [Image.fromarray(decode_image(blob, at_least=side)) for blob in blobs]
    return np.stack([np.asarray(one.resize((side, side))) for one in rows])


def score_shard(
    scorer: GradNormScorer, pixels: np.ndarray, batch: int, device: torch.device, out: Path
) -> float:
    """Scores a shard and commits its part; returns the seconds that the device took."""
    mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
    std = torch.tensor(STD, device=device).view(3, 1, 1)
    start_s, norms, later = time.perf_counter(), [], Verdicts()
    for at in range(0, len(pixels), batch):
        host = torch.from_numpy(pixels[at : at + batch])
        host = host.pin_memory() if device.type == "cuda" else host
        rows = host.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        labels = torch.zeros(len(rows), dtype=torch.int64, device=device)
        scored = scorer.score((rows - mean) / std, labels, later=later)
        norms.append(scored.norms["grad_l2_weights"])
    later.read()
    found = torch.cat(norms).cpu().numpy()
    taken_s = time.perf_counter() - start_s
    whole = out.with_suffix(".part")
    with whole.open("wb") as stream:
        np.save(stream, found)
    os.replace(whole, out)
    return taken_s


def own_rate(step: Callable[[], object], batch: int, device: torch.device, repeats: int) -> float:
    """Returns images a second of a step whose images are on the device already."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start_s = time.perf_counter()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return repeats * batch / (time.perf_counter() - start_s)


def training_rows(device: torch.device, quick: bool, budget: Left) -> Iterator[dict[str, Any]]:
    """Yields rates of training steps in bf16, alone and as trials beside each other."""
    repeats = 2 if quick else 30
    for name in ("cnn5",) if quick else ("cnn5", "airbench94", "resnet50"):
        step, batch = training_step(name, str(device), quick)
        yield {"network": name, "trials": 1, "images_per_s": own_rate(step, batch, device, repeats)}
    for trials in (2,) if quick else (2, 4):
        if budget.left_s() < 10 and not quick:
            yield {"network": "cnn5", "trials": trials, "left_out": "the stage's time was over"}
            continue
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(trials, mp_context=context) as pool:
            given = [("cnn5", str(device), quick, repeats)] * trials
            list(pool.map(trial_rate, given))  # kernels are chosen, processes are warm
            rates = list(pool.map(trial_rate, given))
        yield {"network": "cnn5", "trials": trials, "images_per_s": float(sum(rates)),
               "each": rates}  # fmt: skip


def training_step(name: str, device_name: str, quick: bool) -> tuple[Callable[[], Tensor], int]:
    """Returns one optimiser step of a network on one batch, and the batch's size."""
    device, case = torch.device(device_name), CASES[name]
    batch = 8 if quick else case.batch
    model = case.model(device).train().to(memory_format=torch.channels_last)
    images, labels = case.batch_of(batch, device, quick)
    images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, batch


def trial_rate(given: tuple[str, str, bool, int]) -> float:
    """Returns the rate of one of several processes that train on the same device."""
    name, device_name, quick, repeats = given
    step, batch = training_step(name, device_name, quick)
    return own_rate(step, batch, torch.device(device_name), repeats)


def ray_rows(device: torch.device, quick: bool, budget: Left) -> Iterator[dict[str, Any]]:
    """Yields times of a whole small study as a user runs it; nothing where Ray is not installed."""
    missing = [one for one in ("ray", "pyarrow", "tyro") if importlib.util.find_spec(one) is None]
    if missing:
        yield {"left_out": f"not installed: {', '.join(missing)}"}
        return
    if quick:
        yield {"left_out": "the suite runs the commands"}
        return
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-m", "raygrad", "run", "--run", run, "--train.epochs", "3",
                   "--train.lr-decay-epochs", "2", "--train.device", device.type,
                   "--score.device", device.type, "--select.keep-fractions", "0.1", "1",
                   "--select.seeds", "0"]  # fmt: skip
        start_s = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=max(budget.left_s(), 1.0),
        )  # fmt: skip
        yield {"command": "raygrad run on the digits", "status": done.returncode,
               "wall_s": time.perf_counter() - start_s,
               "said": done.stderr.splitlines()[-1:]}  # fmt: skip
