"""Scores whole architectures of torchvision and timm, and compares them with the float64 loop.

Each network has fresh weights, ten classes and the smallest image that it takes. Of timm a small
one of each family is taken. A network of more parameters than `LARGEST` is shortened: of blocks in
a row that have the same class and the same shapes, one stays.

Two examples of a batch of three are compared, in all three norms over all parameters, with plain
autograd of each image beside its copy in float64; where the error is above 1e-5, also with the same
loop in float32, which has an error of its own. Where neither explains it the network is scored in
float64 too, and the float64 loop runs again at parameters and images that are nudged by the size of
float32's rounding: an error is a tie (a ReLU at 0, which rounding decides) where the first agrees
and the second moves as far, and else the network is inexact. Times are CPU seconds of one run: of
scoring the batch, of one forward and backward pass of it, and of a plain loop over single images,
three times the first image's. A row an architecture goes to the file at once; what is there and
comes from the same code (the digest of raygrad/scoring) is not run again.

    python benchmarks/architectures.py --out ROWS.json
    python benchmarks/architectures.py --out ROWS.json MORE.json --table --record RECORD.json
"""

import argparse
import copy
import hashlib
import json
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from recording import Record
from torch import Tensor, nn

import raygrad.scoring
from raygrad.errors import RaygradError
from raygrad.scoring import GradNormScorer
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.scoring.ties import DRAWS, SLACK, nudged, precision_of

COLUMNS = ("grad_l1_all", "grad_l2_all", "grad_linf_all")
SIZES = (64, 96, 112, 128, 160, 224, 256, 299, 384)
LARGEST = {"torchvision": 30_000_000, "timm": 5_000_000}
"""Parameters of the largest network that is run as it is."""
BUILT = 150_000_000
"""Parameters above which another member of the family is taken, where there is one."""
SECONDS = 600
"""CPU seconds after which a network is left out."""
CANDIDATES = 4
"""Members of a family whose parameters are counted, those with the smallest names."""

_SMALL = ("atto", "femto", "pico", "nano", "zepto", "xxt", "xx", "xt", "tiny", "mini", "micro",
          "small", "_s", "_t", "_0", "b0", "18", "lite", "a0", "s0", "t0")  # fmt: skip


def torchvision_networks() -> Iterator[tuple[str, list[str]]]:
    """All classifiers of torchvision."""
    for name in torchvision.models.list_models(module=torchvision.models):
        yield "torchvision", [name]


def timm_families(count: int) -> Iterator[tuple[str, list[str]]]:
    """The members of each family of timm: names of a module that begin with the same letters."""
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        letters = re.match(r"[a-z]+", name)
        family = timm.models.model_entrypoint(name).__module__ + (letters[0] if letters else name)
        families.setdefault(family, []).append(name)
    for names in list(families.values())[:count]:
        yield "timm", sorted(names, key=_size_by_name)[:CANDIDATES]


def _size_by_name(name: str) -> tuple[int, int, str]:
    place = next((i for i, word in enumerate(_SMALL) if word in name), len(_SMALL))
    return place, len(name), name


def chosen(names: list[str]) -> str:
    """The first network of a family that is not too large to be built, or else the smallest."""
    counts: dict[str, float] = {}
    for name in names:
        try:
            with torch.device("meta"):
                counts[name] = parameters_of(timm.create_model(name, num_classes=10))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            counts[name] = 0
        if counts[name] <= BUILT:
            return name
    return min(counts, key=lambda name: counts[name])


def parameters_of(model: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in model.parameters())


def shorten(model: nn.Module) -> int:
    """Takes out blocks whose neighbour before has the same class and shapes; returns how many."""
    taken = 0
    for module in list(model.modules()):
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        kinds = [(type(m), [tuple(p.shape) for p in m.parameters()]) for m in module]
        kept = [
            m for i, m in enumerate(module) if not kinds[i][1] or i == 0 or kinds[i] != kinds[i - 1]
        ]
        taken += len(module) - len(kept)
        if isinstance(module, nn.ModuleList):
            module[:] = kept
        else:
            names = [name for name, m in module.named_children() if not any(m is k for k in kept)]
            for name in names:
                delattr(module, name)
    return taken


def build(library: str, name: str) -> tuple[nn.Module, int, int]:
    """The network in eval mode, the smallest image that it takes, and the blocks taken out.

    One that does not run with blocks taken out, as where they are counted, is run whole.
    """
    for shortened in (True, False):
        for size in SIZES:
            try:
                model, taken = _make(library, name, size).eval(), 0
                if shortened and parameters_of(model) > LARGEST[library]:
                    taken = shorten(model)
                with torch.no_grad():
                    logits = model(torch.randn(2, 3, size, size))
                if logits.shape == (2, 10) and bool(logits.isfinite().all()):
                    return model, size, taken
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


def plain_loop(model: nn.Module, image: Tensor, label: Tensor) -> None:
    """One example by plain autograd, with its three norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = F.cross_entropy(model(image), label)
    grads = [g for g in torch.autograd.grad(loss, parameters, allow_unused=True) if g is not None]
    for order in (1, 2, torch.inf):
        torch.stack([torch.linalg.vector_norm(g, order) for g in grads]).norm(order)


def measure(library: str, name: str) -> dict[str, object]:
    """One row: the outcome, errors and times of an architecture."""
    row: dict[str, Any] = {"library": library, "name": name}
    model, size, taken = build(library, name)
    row |= {"size": size, "parameters": parameters_of(model), "blocks_taken_out": taken}
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
    row |= {"fallback": len(plan.fallback), "channels_last": plan.channels_last}
    row["last_layer"] = plan.last_layer is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parameters = [p for p in model.parameters() if p.requires_grad]
        row["step_s"] = seconds(
            lambda: torch.autograd.grad(
                F.cross_entropy(model(images), labels), parameters, allow_unused=True
            )
        )
        row["loop_s"] = 3 * seconds(lambda: plain_loop(model, images[:1], labels[:1]))
        exact = loop_grad_norms(model, images[:2], labels[:2], COLUMNS)
        row["error"] = error = error_of(found, exact)
        limit = 1e-5
        if not error <= limit:
            own = error_of(
                loop_grad_norms(model, images[:2], labels[:2], COLUMNS, dtype=None), exact
            )
            row["error_of_float32_loop"] = own
            limit = max(limit, 3 * own)
    kind = "alone" if plan.alone else "+".join(["formulas", *ways])
    if error <= limit:
        return row | {"outcome": kind}
    row |= at_a_kink(model, images, labels, exact, error)
    tie = row["error_in_float64"] <= 1e-6 and error <= SLACK * row["moved_by_a_nudge"]
    return row | {"outcome": f"{kind}, tie" if tie else "inexact"}


def at_a_kink(
    model: nn.Module, images: Tensor, labels: Tensor, exact: dict[str, Tensor], error: float
) -> dict[str, float]:
    """The error of scoring in float64, and how far the first nudge that tells moves the norms."""
    wide, eps = copy.deepcopy(model).double(), precision_of(images)
    images = images.double()
    found = {"error_in_float64": 0.0, "moved_by_a_nudge": 0.0, "draws": 0}
    found["error_in_float64"] = error_of(
        GradNormScorer(wide, COLUMNS).score(images, labels).norms, exact
    )
    for draw in range(DRAWS):
        tensors, some = nudged(dict(wide.named_parameters()), images[:2], eps, draw)
        near = copy.deepcopy(wide)
        near.load_state_dict(tensors, strict=False)
        moved = loop_grad_norms(near, some, labels[:2], COLUMNS)
        found["draws"] = draw + 1
        found["moved_by_a_nudge"] = max(found["moved_by_a_nudge"], error_of(moved, exact))
        if error <= SLACK * found["moved_by_a_nudge"]:
            break
    return found


def _out_of_time(signum: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s of CPU time")


def table(rows: list[dict[str, object]]) -> str:
    """The rows as a table, and their counts."""
    lines = ["| network | px | how | error | float32 loop's | / step | / loop |", "|" + "---|" * 7]
    for row in sorted(rows, key=lambda row: (str(row["library"]) == "timm", str(row["name"]))):
        short = f" (less {row['blocks_taken_out']} blocks)" if row.get("blocks_taken_out") else ""
        name = f"{row['name']}{short}"
        if "error" not in row:
            lines.append(f"| {name} | | {row['outcome']}: {row.get('why', '')} | | | | |")
            continue
        score, step, loop = (float(row[k]) for k in ("score_s", "step_s", "loop_s"))  # type: ignore[arg-type]  # floats
        own = f"{row['error_of_float32_loop']:.1e}" if "error_of_float32_loop" in row else ""
        lines.append(
            f"| {name} | {row['size']} | {row['outcome']} | {row['error']:.1e} | {own} | "
            f"{score / step:.2f} | {score / loop:.2f} |"
        )
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row["outcome"])] = counts.get(str(row["outcome"]), 0) + 1
    return "\n".join([*lines, "", ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))])


def digest() -> str:
    """A digest of the code that scores."""
    files = sorted(Path(raygrad.scoring.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def row_of(library: str, name: str) -> dict[str, object]:
    """The row of an architecture, whatever comes of it."""
    row: dict[str, object] = {"library": library, "name": name}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return measure(library, name)
    except (LookupError, TimeoutError) as reason:
        return row | {"outcome": "left out", "why": str(reason)}
    except Exception as error:  # noqa: BLE001 - a crash is a result
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        return row | {"outcome": "crashed", "why": words}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Parses the flags, runs what is not in the file yet, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="rows, kept as they come"
    )
    parser.add_argument("--families", type=int, default=1000)
    parser.add_argument("--names", nargs="*", help="only these")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th from the K-th on")
    parser.add_argument("--table", action="store_true", help="of the rows that are there")
    parser.add_argument("--record", type=Path, help="with --table: where the rows are kept")
    args = parser.parse_args()
    rows = [row for path in args.out if path.exists() for row in json.loads(path.read_text())]
    if args.table:
        print(table(rows))
        if args.record:
            record = Record("Whole architectures against the float64 loop.", vars(args))
            for row in rows:
                record.add(**row)
            record.write(args.record)
        return
    (out,) = args.out
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _out_of_time)
    code = digest()
    rows = [row for row in rows if row["code"] == code]
    done = {(row["library"], name) for row in rows for name in row["of"]}
    part, parts = map(int, args.part.split("/"))
    networks = [*timm_families(args.families), *torchvision_networks()][part::parts]
    for library, names in networks:
        if (library, names[0]) in done or (args.names and not set(names) & set(args.names)):
            continue
        name = chosen(names) if len(names) > 1 else names[0]
        start = time.process_time()
        row = row_of(library, name)
        row |= {"of": names, "code": code, "cpu_s": time.process_time() - start}
        rows.append(row)
        out.write_text(json.dumps(rows, indent=1) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
