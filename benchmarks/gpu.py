"""All that raygrad claims of GPUs, measured by one script on one GPU in at most 8 minutes.

    python benchmarks/gpu.py --out benchmarks/records/DATE-gpu.json
    python benchmarks/gpu.py --device cpu --quick --out /tmp/gpu.json     # that it works, on a CPU

Stages, each within its own bound, each row written as it is known:
  norms     norms against a float64 loop over single examples, in exact, tf32 and bf16
  speed     time and memory against forward and backward of the same batch, beside peers
  tars      JPEGs in tars to parts on disk, decoded on all cores, scored on the GPU
  training  rates of training steps, alone and as several trials on one GPU
  ray       `raygrad score` and a small study as users run them, where Ray is installed

It needs torch, torchvision and numpy; Pillow for tars; Opacus and BackPACK only to be compared.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.gpu_networks import CASES, EXACT, QUICK, Case, computing
from benchmarks.gpu_pipelines import ray_rows, tar_rows, training_rows
from benchmarks.recording import Record
from raygrad.scoring import GradNormScorer
from raygrad.scoring.numerics import NUMERICS
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.scoring.verdicts import Verdicts

NORMS = {
    "l2": ("grad_l2_weights",),
    "l1": ("grad_l1_weights",),
    "l1+l2+linf": ("grad_l1_weights", "grad_l2_weights", "grad_linf_weights"),
    "last layer": ("grad_l2_last_layer_weights",),
}
WRONG = 1e-3
"""A norm in `exact` that is further from float64 than this fails the script."""
BOUNDS_S = {"norms": 100.0, "speed": 170.0, "tars": 60.0, "training": 60.0, "ray": 90.0}


class Budget:
    """What is left of a stage's time: rows that would begin after its end are left out by name."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def left_s(self) -> float:
        """Returns the seconds left."""
        return self._end_s - time.monotonic()


def settle(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Returns seconds of each call, after one that is not counted."""
    step()
    found = []
    for _ in range(repeats):
        settle(device)
        start = time.perf_counter()
        step()
        settle(device)
        found.append(time.perf_counter() - start)
    return found


def peak_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """Returns the most device memory that a call holds above what was held before."""
    if device.type != "cuda":
        return None
    settle(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    settle(device)
    return torch.cuda.max_memory_allocated() - before


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Returns Spearman's correlation of two score vectors without ties."""
    ranks = [np.argsort(np.argsort(one.double().cpu().numpy())) for one in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def norm_rows(device: torch.device, quick: bool, budget: Budget) -> Iterator[dict[str, Any]]:
    """Yields, by network and numerics, the worst relative errors against float64."""
    columns = (*NORMS["l1+l2+linf"], *NORMS["last layer"])
    for name in QUICK if quick else EXACT:
        if budget.left_s() < 0:
            yield {"network": name, "left_out": "the stage's time was over"}
            continue
        case = CASES[name]
        model = case.model(device)
        images, labels = case.batch_of(4 if quick else 16, device, quick)
        exact = loop_grad_norms(model, images, labels, columns, last_layer=_last_linear(model))
        for kind in NUMERICS:
            with computing(kind, device):
                found = GradNormScorer(model, columns).score(images, labels).norms
            errors = {
                column: float((found[column].double() / exact[column] - 1).abs().max())
                for column in columns
            }
            same = {column: rank_correlation(found[column], exact[column]) for column in columns}
            yield {"network": name, "numerics": kind, "n": len(images), "relative_error": errors,
                   "rank_correlation": same}  # fmt: skip


def _last_linear(model: nn.Module) -> str:
    return [name for name, one in model.named_modules() if isinstance(one, nn.Linear)][-1]


def speed_rows(device: torch.device, quick: bool, budget: Budget) -> Iterator[dict[str, Any]]:
    """Yields, by network, numerics and way, every repetition's time and the memory of one."""
    for name in QUICK if quick else CASES:
        for kind in ("exact",) if quick else ("bf16", "tf32", "exact"):
            if budget.left_s() < 0:
                yield {"network": name, "numerics": kind, "left_out": "the stage's time was over"}
                continue
            with computing(kind, device):
                yield from _speeds(name, kind, CASES[name], device, quick)


def _speeds(
    name: str, kind: str, case: Case, device: torch.device, quick: bool
) -> Iterator[dict[str, Any]]:
    model = case.model(device)
    size = 8 if quick else case.batch
    while True:
        try:
            images, labels = case.batch_of(size, device, quick)
            yield from _ways(name, kind, model, images, labels, device, 2 if quick else 7)
            return
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            yield {"network": name, "numerics": kind, "batch": size, "refused": "out of memory"}
            size //= 2
            if size == 0:
                return


def _ways(
    name: str,
    kind: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    parameters = list(model.parameters())

    def training_passes() -> object:
        return torch.autograd.grad(F.cross_entropy(model(images), labels), parameters)

    def forward() -> object:
        with torch.no_grad():
            return model(images)

    steps: dict[str, Callable[[], object]] = {
        "forward+backward": training_passes,
        "forward": forward,
    }
    for norm, columns in NORMS.items():
        scorer = GradNormScorer(model, columns)
        # As an actor scores: what is checked is read once a shard, not once a batch.
        steps[norm] = lambda scorer=scorer: scorer.score(images, labels, later=Verdicts())
    if kind != "bf16":
        steps |= _peers(model, images, labels)
    unit: list[float] = []
    for way, step in steps.items():
        row: dict[str, Any] = {"network": name, "numerics": kind, "way": way, "batch": len(images)}
        try:
            times = seconds_of(step, device, repeats)
        except torch.OutOfMemoryError:
            if way in ("forward+backward", "forward", *NORMS):
                raise
            torch.cuda.empty_cache()
            yield {**row, "refused": "out of memory"}
            continue
        unit = unit or times
        yield {**row, "seconds": times, "images_per_s": len(images) / statistics.median(times),
               "of_forward_backward": statistics.median(times) / statistics.median(unit),
               "peak_bytes": peak_bytes(step, device)}  # fmt: skip


def _peers(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    """The other implementations that are installed and take this model, for l2."""
    from benchmarks.gradient_norm_peers import PEERS

    found: dict[str, Callable[[], object]] = {}
    for peer, make in PEERS.items():
        if peer == "batch-1 loop" and images.device.type == "cuda":
            continue  # minutes of kernel launches; the float64 stage runs one
        try:
            found[f"{peer} l2"] = make(model, images, labels, "l2")
            found[f"{peer} l2"]()
        except Exception as refusal:  # noqa: BLE001 - a peer's refusal is a result
            found.pop(f"{peer} l2", None)
            print(f"  {peer} refuses: {type(refusal).__name__}", file=sys.stderr)
    return found


def printed(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the short table: a line a row, its facts without single repetitions."""
    for row in rows:
        facts = []
        for key, value in row.items():
            if isinstance(value, float):
                facts.append(f"{key} {value:.4g}")
            elif isinstance(value, dict):
                worst = (min if "correlation" in key else max)(value.values())
                facts.append(f"{key} {worst:.3g}")
            elif not isinstance(value, list):
                facts.append(f"{key} {value}" if key not in ("stage", "network") else str(value))
        yield "  ".join(facts)


def _worst(row: dict[str, Any]) -> float:
    return max(row.get("relative_error", {"": 0.0}).values())


STAGES = {
    "norms": norm_rows,
    "speed": speed_rows,
    "tars": tar_rows,
    "training": training_rows,
    "ray": ray_rows,
}


def main() -> int:
    """Runs the stages asked for; returns 1 where a norm in `exact` is off by more than 1e-3."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the JSON, written as rows are known")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes: that all of it works")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("device must be one that torch sees, got cuda and no GPU. Try --device cpu.")
    record = Record("What raygrad computes on one GPU, how exactly and how fast.", vars(args))
    record.write(args.out)
    for stage in args.stage:
        budget = Budget(BOUNDS_S[stage])
        for row in STAGES[stage](device, args.quick, budget):
            record.add(stage=stage, **row)
            print(next(printed([record.content["rows"][-1]])), flush=True)
    wrong = [
        row
        for row in record.content["rows"]
        if row.get("numerics") == "exact" and _worst(row) > WRONG
    ]
    print(f"\n{record.content['machine']['gpu'] or record.content['machine']['processor']}")
    print("\n".join(printed(record.content["rows"])))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
