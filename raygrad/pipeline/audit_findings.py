"""From what was seen and judged to the tables of an audit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raygrad.audit import confident, keeping, outliers
from raygrad.audit.repeats import NearCopies, Pairs, equal_pairs, groups_of, near_copies
from raygrad.config.auditing import AuditConfig
from raygrad.pipeline.audit_judging import Judgement
from raygrad.pipeline.audit_looking import Seen
from raygrad.selection.keyed_random import random_bits, random_uniform

HARD_SHARE, HARD_ACCURACY = 0.1, 0.95
"""Where a network is right this often on what it has not seen, as on MNIST, the hardest did best
from this share on; elsewhere, as on CIFAR-10 up to 30%, random subsets did (benchmarks/records)."""

_SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Repeats:
    """What repeats, over all examples."""

    groups: NDArray[np.int64]
    """``[N]``, -1 for none."""
    exact: Pairs
    near: Pairs
    notes: tuple[str, ...]
    """How the thresholds were found."""


def find_repeats(seen: Seen) -> Repeats:
    """Finds equal pixels and near copies among all that was seen, of every split."""
    digests = seen.rows["digest"].to_pylist()
    exact = equal_pairs(digests)
    # Each kind of pixels once: copies of copies would prove one another.
    _, first = np.unique(np.array(digests), return_index=True)
    first = np.sort(first)
    vectors = [seen.descriptors[first]]
    if seen.features is not None:
        vectors.append(seen.features[first])
    near = near_copies(seen.pictures[first], vectors)
    pairs = Pairs(first[near.pairs.one], first[near.pairs.other], near.pairs.similarity)
    groups = groups_of([exact, pairs], seen.rows.num_rows)
    return Repeats(groups, exact, pairs, _near_notes(near))


def _near_notes(near: NearCopies) -> tuple[str, ...]:
    """Returns how near copies were told from chance, and what the search may have missed."""
    said = "no pair stands out from chance"
    if len(near.pairs.one):
        said = (
            f"{len(near.pairs.one):,} pairs that correlate by {near.pairs.similarity.min():.3f} or "
            f"more once laid over each other; {near.expected_false:.0f} pictures stand out so far "
            "by chance"
        )
    if near.recall == 1.0:
        return (said,)
    return said, f"the index finds {near.recall:.1%} of the nearest that are compared, of a sample"


def label_table(
    facts: pa.Table,
    judged: Judgement,
    names: Sequence[str],
    beside: Mapping[str, pa.Array] | None = None,
    ranking: str = AuditConfig.ranking,
) -> tuple[pa.Table, dict[str, Any]]:
    """Returns the table of labels, the likeliest wrong first, and what is estimated of them.

    A class that nobody could learn, `Judgement.judgeable`, is nobody's suggestion, and its labels
    are neither suspects nor among the wrong ones. A suspect is a label that another class is
    likelier than, beside that the example is confidently of that class.

    Args:
        facts: key, file, shard, split, label of each example.
        judged: What was said of them.
        names: Of the classes.
        beside: Columns of what the run knows of them otherwise; its aum stands where no training
            of the audit was watched.
        ranking: The column that orders them, the highest first; of `RANKINGS`.
    """
    p, labels = judged.probabilities, facts["label"].to_numpy()
    confident.check_probabilities(p, labels)
    judgeable = judged.judgeable(labels)
    found = _confidently_of(p, labels, judgeable)
    rows = np.arange(len(labels))
    # Where a class is rarely believed in, its threshold is below what the likelier label reaches.
    suspects = (found != confident.NONE) & (p[rows, found] > p[rows, labels])
    errors = confident.label_errors(labels, found, p.shape[1])
    suggested = np.where(suspects, found, confident.suggested_labels(p, labels))
    columns = _judgements(judged, labels, suggested, names)
    # What nothing is known of comes last: an example alone in its class, or trained on by no fold.
    score = np.nan_to_num(columns[ranking].to_numpy(zero_copy_only=False), nan=-np.inf)
    order = np.lexsort((rows, -score, ~judgeable))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(1, len(rows) + 1)
    table = facts.append_column("label_name", _names(names, labels))
    columns |= {"rank": pa.array(rank), "suspect": pa.array(suspects)}
    known = dict(beside or {})
    watched = known.pop("aum", None)
    if judged.aum is None and watched is not None:
        columns["aum"] = watched
    for name, values in (columns | known).items():
        table = table.append_column(name, values)
    said = np.where(suspects, "confident learning", "")
    alone = np.bincount(labels, minlength=p.shape[1])[labels] == 1
    said = np.where(judgeable | alone, said, "the class is in one fold, as copies are: not judged")
    said = np.where(alone, "the class has one example: not judged", said)
    table = table.append_column("says", pa.array(said.tolist(), pa.string()))
    estimate = {
        "num_suspects": int(suspects.sum()),
        "num_wrong": errors.num_wrong,
        "num_wrong_low": errors.low,
        "num_wrong_high": errors.high,
        "joint": errors.joint.tolist(),
        "accuracy": float((p.argmax(1) == labels).mean()),
        "not_judged": int((~judgeable).sum()),
    }
    return table.take(pa.array(order)), estimate


def _confidently_of(
    p: NDArray[np.float32], labels: NDArray[np.int64], judgeable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Returns the class that each example is confidently of, ``[N]``; NONE of what is not judged.

    What nobody could learn would have its own near-zero probability for a threshold, which all
    examples reach.
    """
    thresholds = confident.class_thresholds(p, labels)
    thresholds[np.unique(labels[~judgeable])] = np.inf
    found = confident.confident_classes(p, thresholds)
    return np.where(judgeable, found, confident.NONE)


def _judgements(
    judged: Judgement,
    labels: NDArray[np.int64],
    suggested: NDArray[np.int64],
    names: Sequence[str],
) -> dict[str, pa.Array]:
    """Returns what the networks say of each example, as columns by name."""
    rows = np.arange(len(labels))
    own = judged.probabilities[rows, labels].astype(np.float64)
    return {
        "suggested": pa.array(suggested),
        "suggested_name": _names(names, suggested),
        "confidence": pa.array(judged.probabilities[rows, suggested].astype(np.float64)),
        "label_probability": pa.array(own),
        "loss": pa.array(-np.log(np.maximum(own, 1e-12))),
        "tempered_odds": pa.array(confident.tempered_odds(judged.probabilities, labels)),
        "noise_odds": pa.array(confident.noise_odds(judged.probabilities, labels)),
        "log_odds": pa.array(confident.log_odds(judged.probabilities, labels)),
        "margin": pa.array(confident.normalized_margin(judged.probabilities, labels)),
        "gradient_norm": pa.array(judged.gradient_norms(labels)),
        "aum": _known(judged.aum, len(rows)),
    }


def _known(values: NDArray[np.float32] | None, number: int) -> pa.Array:
    """Returns a column of what is known, null where it is NaN or there is none."""
    if values is None:
        return pa.nulls(number, pa.float64())
    return pa.array(values.astype(np.float64), mask=~np.isfinite(values))


def repeat_table(facts: pa.Table, repeats: Repeats, names: Sequence[str]) -> pa.Table:
    """Returns the members of groups of repeats: groups that cross labels or splits come first.

    Args:
        facts: key, file, shard, split, label of each example.
        repeats: What repeats.
        names: Of the classes.
    """
    groups = repeats.groups
    number = int(groups.max(initial=-1)) + 1
    labels, splits = facts["label"].to_numpy(), np.array(facts["split"].to_pylist())
    similarity = np.zeros(len(groups))
    kind = np.full(len(groups), "near", object)
    for pairs in (repeats.near, repeats.exact):
        for one, other in ((pairs.one, pairs.other), (pairs.other, pairs.one)):
            np.maximum.at(similarity, one, pairs.similarity[np.arange(len(other))])
    kind[np.concatenate([repeats.exact.one, repeats.exact.other])] = "exact"
    across_labels, across_splits = (_differs(groups, of, number) for of in (labels, splits))
    at = np.flatnonzero(groups >= 0)
    serious = across_labels[groups[at]].astype(int) + across_splits[groups[at]]
    at = at[np.lexsort((at, groups[at], -serious))]
    _, shown = np.unique(groups[at], return_index=True)
    order = {int(groups[at[first]]): place for place, first in enumerate(np.sort(shown))}
    table = facts.take(pa.array(at)).append_column("label_name", _names(names, labels[at]))
    for name, values in {
        "kind": kind[at].tolist(),
        "similarity": similarity[at],
        "across_labels": across_labels[groups[at]] if number else np.zeros(0, bool),
        "across_splits": across_splits[groups[at]] if number else np.zeros(0, bool),
    }.items():
        table = table.append_column(name, pa.array(values, pa.string() if name == "kind" else None))
    column = pa.array([order[int(groups[one])] + 1 for one in at], pa.int64())
    return table.add_column(0, "group", column)


def _differs(groups: NDArray[np.int64], of: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """Returns whether the members of each group differ in something, ``[G]``."""
    found = np.zeros(number, bool)
    at = np.flatnonzero(groups >= 0)
    if at.size:
        _, codes = np.unique(of, return_inverse=True)
        low, high = np.full(number, codes.max()), np.zeros(number, codes.dtype)
        np.minimum.at(low, groups[at], codes[at])
        np.maximum.at(high, groups[at], codes[at])
        found = low != high
    return found


def outlier_table(facts: pa.Table, seen: Seen, judged: Judgement) -> pa.Table:
    """Returns how far each example is from every class, odd pictures and the farthest first.

    Args:
        facts: key, file, shard, split, label of each example.
        seen: What was seen of them.
        judged: With the features.
    """
    labels = facts["label"].to_numpy()
    distance, far = np.zeros(len(labels)), np.zeros(len(labels), bool)
    for space in np.unique(judged.spaces):
        at = np.flatnonzero(judged.spaces == space)
        distance[at] = outliers.class_distances(judged.features[at], labels[at])
        far[at] = outliers.far_from_all(distance[at])
    columns = ("width", "height", "contrast", "one_colour")
    width, height, contrast, one_colour = (seen.rows[name].to_numpy() for name in columns)
    odd = outliers.odd_pictures(width, height, contrast, one_colour)
    reasons = [o or ("far from every class" if f else "") for o, f in zip(odd, far, strict=True)]
    order = np.lexsort((-distance, np.array([not o for o in odd])))
    table = facts
    for name in ("width", "height", "brightness", "contrast", "one_colour"):
        table = table.append_column(name, seen.rows[name])
    table = table.append_column("distance", pa.array(distance))
    table = table.append_column("reason", pa.array(reasons, pa.string()))
    table = table.take(pa.array(order))
    return table.append_column("rank", pa.array(np.arange(1, len(order) + 1)))


def keep_tables(
    audit: AuditConfig,
    facts: pa.Table,
    labels: pa.Table,
    found: pa.Table,
    repeats: Repeats,
    judged: Judgement,
    hashes: NDArray[np.uint64],
) -> tuple[pa.Table, pa.Table, str]:
    """Returns what of the training split is kept and what goes, and by which rule.

    Args:
        audit: Goal and share.
        facts: key, file, shard, split, label of each example.
        labels: Of `label_table`.
        found: Of `outlier_table`.
        repeats: What repeats.
        judged: What was said of them.
        hashes: Of the keys.
    """
    suspect = _in_order(labels, "suspect", facts)
    reason = np.array(_in_order(found, "reason", facts).tolist(), object)
    odd = np.isin(reason.astype(str), ["blank", "nearly one colour", "tiny"])
    splits = facts["split"].to_pylist()
    # Of a group that crosses splits the test image stays: what trains on it would know the answer.
    preference = np.array([_SPLITS.index(split) for split in splits], float)
    preference += np.where(suspect, 0.5, 0.0)
    goes = keeping.redundant(repeats.groups, preference)
    train = np.array([split == "train" for split in splits])
    reasons = keeping.flawed(goes, suspect.astype(bool), odd)
    order, rule = _order(audit, facts, judged, hashes, reasons)
    at = np.flatnonzero(train)
    budget = None
    if audit.keep_fraction is not None:
        budget = max(1, round(audit.keep_fraction * len(at)))
    stays = np.zeros(len(train), bool)
    stays[at] = keeping.kept([reasons[i] for i in at], order[at], budget)
    keep = facts.filter(pa.array(stays)).select(["key", "shard"])
    keep = keep.append_column("weight", pa.array(np.ones(keep.num_rows)))
    gone = train & ~stays
    drop = facts.filter(pa.array(gone))
    why = [reasons[i] or rule for i in np.flatnonzero(gone)]
    return keep, drop.append_column("reason", pa.array(why, pa.string())), rule


def _in_order(table: pa.Table, column: str, facts: pa.Table) -> NDArray[Any]:
    """Returns a column of a table in the order of the facts' keys."""
    at = pc.index_in(facts["key"], value_set=table["key"].combine_chunks())
    return np.asarray(table[column].combine_chunks().take(at.combine_chunks()).to_pylist())


def _order(
    audit: AuditConfig,
    facts: pa.Table,
    judged: Judgement,
    hashes: NDArray[np.uint64],
    reasons: Sequence[str],
) -> tuple[NDArray[np.float64], str]:
    """Returns what orders the examples, the first to stay lowest, and the rule in words."""
    labels = facts["label"].to_numpy()
    by_chance = random_uniform(audit.seed, hashes)
    if audit.goal == "coverage":
        clean = np.array([not reason for reason in reasons])
        within = (labels * 2 + clean) * (int(judged.spaces.max()) + 1) + judged.spaces
        bits = random_bits(audit.seed, hashes)
        place = keeping.spread_order(judged.features, within, bits)
        return place, "k-center greedy within each class: what is left is covered by what stays"
    right = float((judged.probabilities.argmax(1) == labels).mean())
    if audit.goal == "accuracy":
        share = audit.keep_fraction or 1.0
        if right >= HARD_ACCURACY and share >= HARD_SHARE:
            own = judged.probabilities[np.arange(len(labels)), labels]
            return own.astype(np.float64), "the hardest stay: they did best on MNIST at such shares"
        return by_chance, (
            "a random draw: no selector did better on CIFAR-10 with 10 or 30% kept; with 50% the "
            "hardest were ahead by less than a point"
        )
    return by_chance, "a random draw of what nothing is wrong with"


def _names(names: Sequence[str], labels: NDArray[np.int64]) -> pa.Array:
    return pa.array([names[i] if i < len(names) else str(i) for i in labels.tolist()], pa.string())
