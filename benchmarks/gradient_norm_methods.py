"""What each way to a convolution's gradient norms costs, beside what the cost model predicts.

Times are CPU times of one thread (they hold on a busy machine), the least of the rounds, in
milliseconds for one example; ``*`` marks the method that the model chooses. ``weights`` is the
ordinary weight gradient of the whole batch, for scale.

    OMP_NUM_THREADS=1 python benchmarks/gradient_norm_methods.py --rounds 4
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from recording import recorded
from torch import Tensor

from raygrad.scoring.convolution import Geometry, convolution_methods, convolution_norms
from raygrad.scoring.cost import Method, cheapest, scratch_budget

# (batch, inputs, pixels a side, outputs, kernel, stride, padding, groups)
LAYERS = {
    "MNIST CNN conv1": (32, 1, 28, 32, 5, 1, 2, 1),
    "MNIST CNN conv2": (32, 32, 14, 64, 5, 1, 2, 1),
    "5-layer CNN conv2": (16, 64, 16, 64, 5, 1, 2, 1),
    "VGG16 32 px, 16x16": (8, 64, 16, 128, 3, 1, 1, 1),
    "VGG16 32 px, 8x8": (8, 128, 8, 256, 3, 1, 1, 1),
    "VGG16 32 px, 4x4": (8, 512, 4, 512, 3, 1, 1, 1),
    "VGG16 32 px, 2x2": (8, 512, 2, 512, 3, 1, 1, 1),
    "ResNet layer1": (2, 64, 56, 64, 3, 1, 1, 1),
    "ResNet layer4": (4, 512, 7, 512, 3, 1, 1, 1),
    "depthwise 7x7": (4, 192, 28, 192, 7, 1, 3, 192),
}
NORMS = (("l2",), ("l1",), ("l1", "l2", "linf"))


def milliseconds(run: Callable[[], object], examples: int, rounds: int) -> list[float]:
    """The CPU time of one example in every round."""
    run()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return [one / examples * 1e3 for one in times]


def norms_in_chunks(
    x: Tensor, g: Tensor, geometry: Geometry, norms: tuple[str, ...], method: Method
) -> None:
    """Computes a batch's norms in the chunks that scoring uses."""
    step = max(1, int(scratch_budget("cpu") // max(1.0, method.scratch_bytes)))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        convolution_norms(x[rows], g[rows], geometry, norms, method.name)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    args, record = recorded(parser, "The method of each layer costs about what was predicted.")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| layer | norms | method | predicted | measured | weights |")
    print("|---|---|---|---|---|---|")
    for name in args.layers:
        batch, inputs, side, outputs, kernel, stride, padding, groups = LAYERS[name]
        geometry = Geometry((kernel,) * 2, (stride,) * 2, (padding,) * 2, (1, 1), groups)
        x = torch.randn(batch, inputs, side, side)
        weight = torch.randn(outputs, inputs // groups, kernel, kernel, requires_grad=True)
        y = F.conv2d(x, weight, None, stride, padding, 1, groups)
        g = torch.randn_like(y)
        whole = milliseconds(
            partial(torch.autograd.grad, y, weight, g, retain_graph=True),
            batch,
            args.rounds,
        )
        for norms in NORMS:
            methods = convolution_methods(x.shape, y.shape, geometry, norms)
            chosen = cheapest(methods)
            for method in sorted(methods, key=lambda method: method.seconds()):
                if method.seconds() > 6 * chosen.seconds():
                    continue
                took = milliseconds(
                    partial(norms_in_chunks, x, g, geometry, norms, method),
                    batch,
                    args.rounds,
                )
                mark = " *" if method == chosen else ""
                print(
                    f"| {name} | {'+'.join(norms)} | {method.name}{mark} "
                    f"| {method.seconds() * 1e3:.3f} | {min(took):.3f} | {min(whole):.3f} |",
                    flush=True,
                )
                record.add(
                    layer=name,
                    norms=norms,
                    method=method.name,
                    chosen=method == chosen,
                    predicted_ms=method.seconds() * 1e3,
                    measured_ms=took,
                    weights_ms=whole,
                )


if __name__ == "__main__":
    main()
