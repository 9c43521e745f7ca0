"""Scores whole architectures of torchvision and timm, and compares them with the float64 loop.

Each network has fresh weights, ten classes and the smallest image that it takes. Two examples of a
batch of three are compared, in all three norms over all parameters, with plain autograd of each
image beside its copy in float64; where the error is above 1e-5, also with the same loop in float32,
which has an error of its own. A row an architecture goes to the file at once, and what is there is
not run again.

    python benchmarks/architectures.py --out benchmarks/records/NAME.json --families 130
    python benchmarks/architectures.py --out benchmarks/records/NAME.json --table
"""

import argparse
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from raygrad.errors import RaygradError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.oracle import loop_grad_norms

COLUMNS = ("grad_l1_all", "grad_l2_all", "grad_linf_all")
SIZES = (64, 96, 128, 160, 224, 256, 299, 384)
LARGEST = 45_000_000
"""Parameters of the largest network that is run."""

_SMALL = ("atto", "femto", "pico", "nano", "zepto", "xxt", "xx", "xt", "tiny", "mini", "micro",
          "small", "_s", "_t", "_0", "b0", "18", "lite", "a0", "s0", "t0")  # fmt: skip


def torchvision_networks() -> Iterator[tuple[str, str]]:
    """All classifiers of torchvision."""
    for name in torchvision.models.list_models(module=torchvision.models):
        yield "torchvision", name


def timm_families(count: int) -> Iterator[tuple[str, str]]:
    """A small network of each family of timm: names that begin with the same letters."""
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        letters = re.match(r"[a-z]+", name)
        family = timm.models.model_entrypoint(name).__module__ + (letters[0] if letters else name)
        families.setdefault(family, []).append(name)
    for names in list(families.values())[:count]:
        yield "timm", min(names, key=_size_by_name)


def _size_by_name(name: str) -> tuple[int, int, str]:
    place = next((i for i, word in enumerate(_SMALL) if word in name), len(_SMALL))
    return place, len(name), name


def build(library: str, name: str) -> tuple[nn.Module, int]:
    """The network in eval mode, and the smallest image that it takes."""
    for size in SIZES:
        try:
            model = _make(library, name, size).eval()
            if sum(p.numel() for p in model.parameters()) > LARGEST:
                raise MemoryError("too large for this benchmark")
            with torch.no_grad():
                logits = model(torch.randn(2, 3, size, size))
            if logits.shape == (2, 10) and bool(logits.isfinite().all()):
                return model, size
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
            continue
    raise LookupError("no image size of the list is taken")


def _make(library: str, name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    if library == "torchvision":
        options: dict[str, object] = {"image_size": size} if name.startswith("vit") else {}
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = True
        return torchvision.models.get_model(name, num_classes=10, **options)
    try:
        return timm.create_model(name, num_classes=10, img_size=size)
    except TypeError:
        return timm.create_model(name, num_classes=10)


def error_of(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """The largest relative error over the columns and the compared examples."""
    return max(
        float(((found[c][:2].double() - exact[c]).abs() / exact[c].clamp(min=1e-30)).max())
        for c in COLUMNS
    )


def seconds(step: Callable[[], object]) -> float:
    """CPU time of one step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def measure(library: str, name: str) -> dict[str, object]:
    """One row: the outcome, errors and times of an architecture."""
    row: dict[str, object] = {"library": library, "name": name}
    model, size = build(library, name)
    parameters = list(model.parameters())
    row |= {"size": size, "parameters": sum(p.numel() for p in parameters)}
    torch.manual_seed(1)
    images, labels = torch.randn(3, 3, size, size), torch.tensor([3, 7, 1])
    scorer = GradNormScorer(model, COLUMNS)
    try:
        row["prepare_s"] = seconds(lambda: scorer.score(images, labels))
        start = time.process_time()
        found = scorer.score(images, labels).norms
    except RaygradError as refusal:
        return row | {"outcome": "refused", "why": str(refusal)}
    row["score_s"] = time.process_time() - start
    plan = next(iter(scorer._plans.values()))
    ways = sorted(set(plan.fallback.values()))
    row["fallback"] = len(plan.fallback)
    row["channels_last"] = plan.channels_last
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row["step_s"] = seconds(
            lambda: torch.autograd.grad(
                F.cross_entropy(model(images), labels), parameters, allow_unused=True
            )
        )
        exact = loop_grad_norms(model, images[:2], labels[:2], COLUMNS)
        row["error"] = error_of(found, exact)
        start = time.process_time()
        own = loop_grad_norms(model, images[:2], labels[:2], COLUMNS, dtype=None)
        row["loop_s"] = (time.process_time() - start) * 3 / 2
        row["error_of_float32_loop"] = error_of(own, exact)
    limit = max(1e-5, 3 * float(row["error_of_float32_loop"]))  # type: ignore[arg-type]  # a float
    kind = "alone" if plan.alone else "+".join(["formulas", *ways])
    return row | {"outcome": kind if float(row["error"]) <= limit else "inexact"}  # type: ignore[arg-type]  # a float


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a table, and their counts."""
    lines = ["| network | px | how | error | float32 loop's | / step | / loop |", "|" + "---|" * 7]
    for row in rows:
        if "error" not in row:
            lines.append(f"| {row['name']} | | {row['outcome']}: {row.get('why', '')} | | | | |")
            continue
        score = float(row["score_s"])  # type: ignore[arg-type]  # a float
        step, loop = float(row["step_s"]), float(row["loop_s"])  # type: ignore[arg-type]  # floats
        lines.append(
            f"| {row['name']} | {row['size']} | {row['outcome']} | {row['error']:.1e} | "
            f"{row['error_of_float32_loop']:.1e} | {score / step:.2f} | {score / loop:.2f} |"
        )
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row["outcome"])] = counts.get(str(row["outcome"]), 0) + 1
    return "\n".join([*lines, "", ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))])


def main() -> None:
    """Parses the flags, runs what is not in the file yet, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", type=int, default=1000)
    parser.add_argument("--names", nargs="*", help="only these")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th from the K-th on")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    if args.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    done = {(row["library"], row["name"]) for row in rows}
    part, parts = map(int, args.part.split("/"))
    networks = [*torchvision_networks(), *timm_families(args.families)][part::parts]
    for library, name in networks:
        if (library, name) in done or (args.names and name not in args.names):
            continue
        try:
            row = measure(library, name)
        except (LookupError, MemoryError) as reason:
            row = {"library": library, "name": name, "outcome": "left out", "why": str(reason)}
        except Exception as error:  # noqa: BLE001 - a crash is a result
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            row = {"library": library, "name": name, "outcome": "crashed", "why": words}
        rows.append(row)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
