"""Selection the slow way: sort everything, in Python, one class at a time."""

import math

import numpy as np

from raygrad.selection.keyed_random import key_hashes, random_bits, random_uniform


def quotas(labels, budget):
    """Gives one at a time to the class that has given least; of equals, to the largest."""
    counts = {c: labels.count(c) for c in sorted(set(labels))}
    given = dict.fromkeys(counts, 0)
    for _ in range(budget):
        able = [c for c in counts if given[c] < counts[c]]
        given[min(able, key=lambda c: (given[c], -counts[c], c))] += 1
    return given


def draw(method, scores, keys, budget, seed, labels=None, **options):
    """Returns the keys drawn, in draw order."""
    hashes = key_hashes(keys)
    ties = dict(zip(keys, random_bits(seed, hashes).tolist(), strict=True))
    uniform = dict(zip(keys, random_uniform(seed, hashes).tolist(), strict=True))
    score = dict(zip(keys, np.asarray(scores, np.float64).tolist(), strict=True))
    labels = [0] * len(keys) if labels is None else list(labels)
    orders = {}
    for label in sorted(set(labels)):
        members = [k for k, of in zip(keys, labels, strict=True) if of == label]
        orders[label] = _order(method, members, score, ties, uniform, **options)
    given = quotas([label for label, order in orders.items() for _ in order], budget)
    drawn = []
    for label, quota in given.items():
        if method == "ccs":
            drawn += _ccs([k for _, _, k in orders[label]], quota, score, ties, **options)
        else:
            drawn += orders[label][:quota]
    return [key for _, _, key in sorted(drawn)]


def _order(method, members, score, ties, uniform, **options):
    hardest = sorted(members, key=lambda k: (-score[k], ties[k]))
    easiest = sorted(members, key=lambda k: (score[k], ties[k]))
    if method == "random":
        return sorted((0, ties[k], k) for k in members)
    if method == "easiest":
        return [(score[k], ties[k], k) for k in easiest]
    if method == "gradient_cdf":
        return sorted((_arrival(uniform[k], score[k]), ties[k], k) for k in members)
    if method == "band":
        low, high = (round(options[end] * len(members)) for end in ("low", "high"))
        return sorted((0, ties[k], k) for k in easiest[low:high])
    default = {"max_gradient": 0.0, "non_extreme_max_gradient": 0.05, "ccs": 0.1}[method]
    out = round(options.get("drop_fraction", default) * len(members))
    return [(-score[k], ties[k], k) for k in hardest[out:]]


def _arrival(uniform, rate):
    return math.inf if rate == 0 else math.log(-math.log(uniform)) - math.log(rate)


def _ccs(left, quota, score, ties, drop_fraction=0.1, num_strata=50):
    low, high = min(score[k] for k in left), max(score[k] for k in left)
    strata = {}
    for key in left:
        width = high - low
        at = min(int((score[key] - low) / width * num_strata), num_strata - 1) if width else 0
        strata.setdefault(at, []).append(key)
    named = [at for at, keys in sorted(strata.items()) for _ in keys]
    given = quotas(named, quota)
    drawn = []
    for at, keys in strata.items():
        drawn += sorted((0, ties[k], k) for k in keys)[: given[at]]
    return drawn
