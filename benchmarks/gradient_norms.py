"""What per-example gradient norms cost: raygrad and its peers against one training step's passes.

Every round times each way once, in turn, in this one process, so that what the machine does
meanwhile falls on all of them; the table gives medians of the rounds' ratios to an ordinary forward
and backward pass (mean loss, gradients of all parameters) of the same batch. Memory is the peak
above what the process held before.

    python benchmarks/gradient_norms.py --networks mnist_cnn alexnet --rounds 7 --peers all

Opacus and BackPACK are looked up in ``--peer-path`` if they are not installed.
"""

import argparse
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from gradient_norm_peers import PEERS
from recording import Record, recorded

from raygrad.scoring import GradNormScorer
from raygrad.training.networks import NETWORKS, ImageSpec

LAST = "grad_l2_last_layer_weights"
COLUMNS = {
    "l2": ("grad_l2_weights",),
    "l1": ("grad_l1_weights",),
    "linf": ("grad_linf_weights",),
    "l1+l2+linf": ("grad_l1_weights", "grad_l2_weights", "grad_linf_weights"),
    "last layer": (LAST,),
}


def vit_small() -> nn.Module:
    """ViT-S/16 for 224 pixels."""
    return torchvision.models.VisionTransformer(224, 16, 12, 6, 384, 1536)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "linear": (lambda: NETWORKS["linear"](ImageSpec(1, 28, 28, 10)), (1, 28, 28), 1024),
    "mnist_cnn": (lambda: NETWORKS["cnn"](ImageSpec(1, 28, 28, 10)), (1, 28, 28), 128),
    "five_layer_cnn": (lambda: NETWORKS["cnn5"](ImageSpec(3, 32, 32, 10)), (3, 32, 32), 64),
    "vgg16_32px": (lambda: NETWORKS["vgg16_32"](ImageSpec(3, 32, 32, 10)), (3, 32, 32), 64),
    "alexnet": (torchvision.models.alexnet, (3, 224, 224), 32),
    "resnet18": (torchvision.models.resnet18, (3, 224, 224), 16),
    "resnet50": (torchvision.models.resnet50, (3, 224, 224), 8),
    "vgg16": (torchvision.models.vgg16, (3, 224, 224), 8),
    "vgg16_bn": (torchvision.models.vgg16_bn, (3, 224, 224), 8),
    "vit_s_16": (vit_small, (3, 224, 224), 8),
    "convnext_t": (torchvision.models.convnext_tiny, (3, 224, 224), 8),
}
"""Network, image shape and batch size by name."""


def training_pass(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """Forward and backward pass of the mean loss: what everything is compared with."""
    parameters = list(model.parameters())

    def step() -> object:
        return torch.autograd.grad(F.cross_entropy(model(images), labels), parameters)

    return step


def inference(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """A forward pass without a graph."""

    def step() -> object:
        with torch.no_grad():
            return model(images)

    return step


def peak_memory_mb(step: Callable[[], object]) -> float:
    """The most memory that one step holds above what was held before (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kb("VmRSS")
    step()
    return (_status_kb("VmHWM") - before) / 1024


def _status_kb(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise KeyError(field)


def ways(
    model: nn.Module, images: Tensor, labels: Tensor, norms: list[str], peers: list[str]
) -> dict[str, Callable[[], object]]:
    """Every way to time by name; peers that refuse are named with their reason and left out."""
    found: dict[str, Callable[[], object]] = {
        "forward+backward": training_pass(model, images, labels),
        "forward only": inference(model, images),
    }
    exact = {}
    for norm in norms:
        scorer = GradNormScorer(model, COLUMNS[norm])
        found[f"raygrad {norm}"] = lambda scorer=scorer: scorer.score(images, labels)
        exact[norm] = scorer.score(images, labels).norms[COLUMNS[norm][0]]
    for peer in peers:
        for norm in ("l2", "l1", "linf"):
            if norm not in norms:
                continue
            try:
                step = PEERS[peer](model, images, labels, norm)
                error = float(((step() - exact[norm]).abs() / exact[norm]).max())
            except Exception as refusal:  # noqa: BLE001 - a peer's refusal is a result
                reason = (str(refusal).splitlines() or [type(refusal).__name__])[0][:100]
                print(f"  {peer} {norm}: refused: {reason!r}", flush=True)
                continue
            if error > 1e-2:
                print(f"  {peer} {norm}: differs by {error:.1%}")
            found[f"{peer} {norm}"] = step
    return found


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What to time by. With one thread, CPU time is fair on a machine that others use as well."""


def measure(
    name: str,
    rounds: int,
    norms: list[str],
    peers: list[str],
    batch: int | None,
    clock: str,
    record: Record,
) -> None:
    """Prints and records each ratio as it is known, and then the table of one network."""
    make, shape, size = CASES[name]
    size = batch or size
    torch.manual_seed(0)
    model = make().eval()
    images, labels = torch.randn(size, *shape), torch.randint(0, 10, (size,))
    print(f"\n{name}, batch {size}, image {list(shape)}, {rounds} rounds", flush=True)
    steps = ways(model, images, labels, norms, peers)
    memory = {way: peak_memory_mb(step) for way, step in steps.items()}
    times: dict[str, list[float]] = {way: [] for way in steps}
    for number in range(rounds):
        for way, step in steps.items():
            start = CLOCKS[clock]()
            step()
            times[way].append(CLOCKS[clock]() - start)
            # At once: a run that is cut short keeps what it has measured.
            ratio = times[way][-1] / times[_unit(way)][-1]
            print(f"  round {number}: {way:24} {ratio:6.2f}", flush=True)
    record.add(network=name, batch=size, image=shape, seconds=times, peak_mb=memory)
    print(f"  {'way':24} {'ratio':>6} {'min':>6} {'max':>6} {'img/s':>8} {'peak MB':>8}")
    for way, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[_unit(way)], strict=True)]
        mark = " of forward only" if "last layer" in way else ""
        print(
            f"  {way:24} {statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f} "
            f"{size / statistics.median(seconds):8.1f} {memory[way]:8.0f}{mark}",
            flush=True,
        )


def _unit(way: str) -> str:
    """The way that another is compared with; it comes before it in every round."""
    return "forward only" if "last layer" in way else "forward+backward"


def main() -> None:
    """Parses the flags and prints a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--norms", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--peers", nargs="*", choices=["all", *PEERS], default=[])
    parser.add_argument("--peer-path", help="a folder with Opacus and BackPACK")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args, record = recorded(parser, "Gradient norms against a training step's passes.")
    if args.peer_path:
        sys.path.append(args.peer_path)
    torch.set_num_threads(args.threads)
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {args.threads} threads, {capability}, {args.clock} time")
    peers = list(PEERS) if "all" in args.peers else args.peers
    for name in args.networks:
        measure(name, args.rounds, args.norms, peers, args.batch, args.clock, record)


if __name__ == "__main__":
    main()
