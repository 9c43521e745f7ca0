"""Timing of alternatives in turn, in one process, so that all share the machine's ups and downs."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def time_interleaved(
    alternatives: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Returns seconds of every call, by alternative; one round of each comes first, uncounted.

    With one thread, `time.process_time` is fair on a machine that others use as well.
    """
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for repeat in range(repeats + 1):
        for name, run in alternatives.items():
            begin_s = clock()
            run()
            if repeat:
                seconds[name].append(clock() - begin_s)
    return seconds


def print_rates(seconds: Mapping[str, list[float]], count: int, unit: str, against: str) -> None:
    """Prints each alternative's rate and its ratio to one of them, with the spread of rounds.

    The ratio of the fastest rounds is what is left where others use the machine at times.
    """
    print(f"| alternative | {unit}/s | ratio to {against}: median [min, max] | of fastest | n |")
    print("|---|---|---|---|---|")
    for name, values in seconds.items():
        ratios = [base / own for base, own in zip(seconds[against], values, strict=True)]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        rate, best = count / statistics.median(values), min(seconds[against]) / min(values)
        print(f"| {name} | {rate:,.0f} | {spread} | {best:.3f} | {len(values)} |")
