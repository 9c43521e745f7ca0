"""k-center, D2 and BADGE against their authors' definitions, written out for every pair."""

import numpy as np
import pytest

from raygrad.errors import ConfigError, DataError
from raygrad.selection import COMPARING, draw
from raygrad.selection.badge import guessed_errors
from raygrad.selection.comparing import BLOCK_SIZE
from raygrad.selection.keyed_random import key_hashes, random_bits
from tests.selection.test_batch_aware import data, written_out

SPREAD = ("k_center", "d2", "badge")


def arrays_of(number=60, seed=0):
    errors, features, labels, keys = data(number, seed=seed)
    rows = {
        "errors": errors.astype(np.float32),
        "features": features.astype(np.float16),
        "score": np.linalg.norm(errors, axis=1),
    }
    return rows, labels, keys


def in_order(keys, seed=0):
    """Positions in the order that a seed and the keys decide."""
    return np.argsort(random_bits(seed, key_hashes(keys)), kind="stable")


def far_apart(features):
    """All Euclidean distances, by differences."""
    wide = features.astype(np.float64)
    return np.linalg.norm(wide[:, None] - wide[None], axis=2)


@pytest.mark.parametrize("seed", range(3))
def test_k_center_takes_the_farthest_from_all_chosen(seed):
    rows, _, keys = arrays_of(seed=seed)
    order, between = in_order(keys, seed), far_apart(rows["features"])
    chosen = [order[0]]
    while len(chosen) < 25:
        nearest = between[:, chosen].min(axis=1)
        chosen.append(int(np.argmax(nearest)))
    assert draw("k_center", rows, keys, 25, seed=seed).tolist() == chosen


def test_k_center_is_within_twice_the_least_radius():
    """The bound of Gonzalez, against the best of all pairs of centres."""
    rows, _, keys = arrays_of(16)
    between = far_apart(rows["features"])
    best = min(between[:, [i, j]].min(1).max() for i in range(16) for j in range(i))
    found = draw("k_center", rows, keys, 2)
    assert between[:, found].min(axis=1).max() <= 2 * best


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("neighbours", [1, 4, 100])
def test_d2_spreads_scores_and_lowers_the_neighbours_of_what_is_taken(neighbours, scaled):
    """Equations of the paper, over a graph of the k nearest from all distances."""
    rows, _, keys = arrays_of(40)
    squares, number = far_apart(rows["features"]) ** 2, 40
    near = [
        [j for j in sorted(range(number), key=lambda j: squares[i, j]) if j != i][:neighbours]
        for i in range(number)
    ]
    if scaled:
        squares = squares / np.mean([squares[i, j] for i in range(number) for j in near[i]])
    score = rows["score"]
    level = [
        score[i] + sum(np.exp(-0.7 * squares[i, j]) * score[j] for j in near[i])
        for i in range(number)
    ]
    chosen, left = [], set(range(number))
    while len(chosen) < 15:
        k = max(left, key=lambda i: level[i])
        left.remove(k)
        chosen.append(k)
        for j in near[k]:
            level[j] -= np.exp(-0.3 * squares[k, j]) * level[k]
    options = {"num_neighbours": neighbours, "gamma_f": 0.7, "gamma_r": 0.3, "scaled": scaled}
    assert draw("d2", rows, keys, 15, **options).tolist() == chosen


def test_d2_without_messages_is_max_gradient_and_says_so(caplog):
    rows, _, keys = arrays_of()
    far = {**rows, "features": rows["features"].astype(np.float32) * 1e3}
    found = draw("d2", far, keys, 20, scaled=False)
    assert found.tolist() == draw("max_gradient", rows["score"], keys, 20).tolist()
    assert "no message arrives" in caplog.text


def test_d2_counts_scores_below_zero_from_the_lowest():
    rows, _, keys = arrays_of()
    lower = {**rows, "score": rows["score"] - rows["score"].min() - 3}
    raised = {**rows, "score": rows["score"] - rows["score"].min()}
    found = [draw("d2", some, keys, 30).tolist() for some in (lower, raised)]
    assert found[0] == found[1]


@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_badge_is_the_seeding_of_k_means_over_gradients_written_out(seed, guessed):
    """Each draw against the distances between outer products, by the same uniform numbers."""
    rows, labels, keys = arrays_of(seed=seed)
    errors = rows["errors"].astype(np.float64)
    if guessed:
        probabilities = errors + np.eye(5)[labels]
        errors = probabilities - np.eye(5)[probabilities.argmax(1)]
    order = in_order(keys, seed)
    gradients = written_out(errors, rows["features"].astype(np.float64))[order]
    rng = np.random.default_rng([seed, 0])
    chosen = [int(np.argmax(np.linalg.norm(gradients, axis=1)))]
    while len(chosen) < 20:
        apart = np.linalg.norm(gradients[:, None] - gradients[chosen][None], axis=2).min(1) ** 2
        chosen.append(int(np.searchsorted(np.cumsum(apart), rng.random() * apart.sum())))
    found = draw("badge", rows, keys, 20, seed=seed, guessed=guessed)
    assert found.tolist() == order[chosen].tolist()


def test_badge_draws_in_proportion_to_the_squared_distance():
    """How often each is the second of 600 draws, against the exact chances."""
    rows, _, keys = arrays_of(8)
    gradients = written_out(rows["errors"], rows["features"].astype(np.float64))
    first = int(np.argmax(np.linalg.norm(gradients, axis=1)))
    exact = np.linalg.norm(gradients - gradients[first], axis=1) ** 2
    exact /= exact.sum()
    second = [draw("badge", rows, keys, 2, seed=seed)[1] for seed in range(600)]
    found = np.bincount(second, minlength=8) / 600
    assert np.all(np.abs(found - exact) < 4.5 * np.sqrt(exact * (1 - exact) / 600) + 2e-3)


def test_a_guess_stands_in_the_place_of_the_label():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], np.float32)
    errors = probabilities - np.eye(3, dtype=np.float32)[[0, 2]]
    found = guessed_errors(errors)
    np.testing.assert_allclose(found, probabilities - np.eye(3)[[0, 1]], atol=1e-6)


@pytest.mark.parametrize("class_balanced", [False, "even", "proportional"])
@pytest.mark.parametrize("block_size", [BLOCK_SIZE, 23])
@pytest.mark.parametrize("method", SPREAD)
def test_draws_nest_and_do_not_depend_on_order(method, block_size, class_balanced):
    rows, labels, keys = arrays_of(150)
    options = {"labels": labels, "class_balanced": class_balanced, "block_size": block_size}
    shuffled = np.random.default_rng(1).permutation(150)
    other = draw(
        method, {name: values[shuffled] for name, values in rows.items()},
        [keys[at] for at in shuffled], 70, **{**options, "labels": labels[shuffled]},
    )  # fmt: skip
    found = draw(method, rows, keys, 70, **options)
    assert found.tolist() == shuffled[other].tolist()
    assert len(set(found.tolist())) == 70
    for fewer in (1, 31, 69):
        left_out = set(draw(method, rows, keys, fewer, **options).tolist()) - set(found.tolist())
        assert len(left_out) <= (5 if class_balanced == "proportional" else 0)
    assert sorted(draw(method, rows, keys, 150, **options).tolist()) == list(range(150))


@pytest.mark.parametrize("method", SPREAD)
def test_class_balanced_draws_compare_within_a_class_and_share_evenly(method):
    rows, labels, keys = arrays_of(200)
    found = draw(method, rows, keys, 50, labels=labels, class_balanced=True)
    assert np.bincount(labels[found]).tolist() == [10] * 5
    of = np.flatnonzero(labels == 0)
    alone = draw(method, {n: v[of] for n, v in rows.items()}, [keys[at] for at in of], 10)
    kept = of[alone].tolist()
    assert [at for at in found.tolist() if labels[at] == 0] == kept


def test_what_repeats_is_drawn_last():
    """Copies have no distance to what is chosen, and are still drawn when nothing else is left."""
    rows, _, keys = arrays_of(20)
    for values in rows.values():
        values[10:] = values[:10]
    for method in ("k_center", "badge"):
        found = draw(method, rows, keys, 20)
        assert sorted(found[:10] % 10) == list(range(10)), method
        assert len(set(found.tolist())) == 20


@pytest.mark.parametrize("method", COMPARING)
def test_wrong_use_is_named(method):
    rows, labels, keys = arrays_of(10)
    with pytest.raises(ConfigError, match=f"{method} needs the arrays .*, got neither"):
        draw(method, rows["score"], keys, 3, labels=labels)
    with pytest.raises(ConfigError, match=r"budget must be in \[1, 10\], got 11"):
        draw(method, rows, keys, 11, labels=labels)
    with pytest.raises(ConfigError, match="missing must be error or drop"):
        draw(method, rows, keys, 3, labels=labels, missing="hardest")
    with pytest.raises(DataError, match=r"features must have 9 rows of vectors|must have 9 rows"):
        draw(method, rows, keys[:9], 3, labels=labels)
    with pytest.raises(DataError, match="keys must be unique, got 'a' twice"):
        draw(method, rows, ["a", *keys[1:9], "a"], 3, labels=labels)
    with pytest.raises(ConfigError, match=f"option of {method}"):
        draw(method, rows, keys, 3, labels=labels, blok_size=3)
    rows["features"][3] = np.inf
    with pytest.raises(DataError, match=f"must be finite, got 1 rows that are not: {keys[3]}"):
        draw(method, rows, keys, 3, labels=labels)
    found = draw(method, rows, keys, 9, labels=labels, missing="drop")
    assert sorted(found.tolist()) == [0, 1, 2, *range(4, 10)]
