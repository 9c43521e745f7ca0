"""Planted wrong labels are those that the study says, and are counted where they went."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import noise_record, noise_study
from benchmarks.noise_study import NORM, TAKEN_FOR, Unit
from benchmarks.planting import true_class

PER_CLASS = 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A tar of CIFAR-10's classes: each of a colour of its own, with noise."""
    path = tmp_path_factory.mktemp("noise") / "images.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for split, count in (("test", 3), ("train", PER_CLASS + 5)):
            for at, name in enumerate(sorted(TAKEN_FOR)):
                for number in range(count):
                    pixels = rng.integers(0, 90, (32, 32, 3)) + 16 * at
                    out = io.BytesIO()
                    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
                    info = tarfile.TarInfo(f"{split}/{name}/{number:04d}.png")
                    info.size = out.tell()
                    tar.addfile(info, io.BytesIO(out.getvalue()))
    return path


@pytest.mark.parametrize("kind", noise_study.KINDS)
def test_a_tenth_of_the_files_stands_in_the_class_that_it_is_taken_for(archive, tmp_path, kind):
    noise_study.plant(archive, tmp_path / "out", Unit(kind, 1, PER_CLASS))
    files = sorted((tmp_path / "out" / "train").rglob("*.png"))
    moved = [(true_class(path.stem), path.parent.name) for path in files]
    wrong = [pair for pair in moved if pair[0] != pair[1]]
    assert (len(files), len(wrong)) == (10 * PER_CLASS, PER_CLASS)
    assert all(sum(of == name for of, _ in moved) == PER_CLASS for name in TAKEN_FOR)
    if kind == "confused":
        assert all(TAKEN_FOR[of] == to for of, to in wrong)
    assert len(list((tmp_path / "out" / "test").rglob("*.png"))) == 30


def made_up(num=200, num_wrong=20):
    """Scores that find all that is wrong, but for the ends that the test looks at."""
    wrong = np.arange(num) < num_wrong
    hard = np.where(wrong, 10.0, 1.0) + np.linspace(0, 0.5, num)
    keys = [f"train/cat/{at:06d}-{'dog' if bad else 'cat'}" for at, bad in enumerate(wrong)]
    columns = dict.fromkeys((NORM, "aum", "dual"), hard)
    forgetting = np.where(wrong, np.inf, 1.0)
    return wrong, pd.DataFrame(
        {"key": keys, "label": 3, **columns, "mean_probability": 1 / hard, "forgetting": forgetting}
    )


def test_what_is_wrong_is_read_from_keys_and_found_by_every_column():
    wrong, scores = made_up()
    assert (noise_study.is_wrong(scores) == wrong).all()
    rows = {row["score"]: row for row in noise_study.found(scores, wrong)}
    assert set(rows) == {NORM, "aum", "dual", "mean_probability", "forgetting"}
    for row in rows.values():
        assert row["auc"] == row["precision"] == 1
        assert row["average_precision"] == pytest.approx(1)


def test_what_selectors_keep_is_counted():
    wrong, scores = made_up()
    rows = {(r["method"], r["keep_fraction"]): r for r in noise_study.kept(scores, wrong, 0)}
    assert len(rows) == len(noise_study.SELECTORS) * len(noise_study.SHARES)
    assert rows["max_gradient", 0.1]["wrong_share"] == 1
    assert rows["max_gradient", 0.5]["wrong_share"] == pytest.approx(0.2)
    assert rows["easiest", 0.8]["wrong_kept"] == 0
    # A tenth is wrong: without the hardest twentieth half of that is left, all of it kept.
    assert rows["non_extreme_max_gradient", 0.1]["wrong_kept"] == pytest.approx(0.5)


def test_every_way_of_cleaning_leaves_out_as_many_as_are_wrong(tmp_path):
    wrong, scores = made_up()
    made = noise_study.write_cleaned(scores, wrong, tmp_path, 0)
    kept = {path.rsplit("/", 1)[-1]: set(pq.read_table(path)["key"].to_pylist()) for path in made}
    right = set(scores.key[~wrong])
    assert kept["all_data-0.parquet"] == set(scores.key)
    assert kept["truth-0.parquet"] == kept["cleaned_by_norm-0.parquet"] == right
    assert kept["cleaned_by_aum-0.parquet"] == right
    assert len(kept["random_rest-0.parquet"]) == len(right)
    assert kept["random_rest-0.parquet"] != right


def cleaned(gains, scatter):
    """Trials of three seeds that scatter alike whatever was cleaned."""
    return pd.DataFrame(
        {"kind": "symmetric", "seed": seed, "method": method,
         "test_accuracy": 0.5 + gain + scatter * (seed + at % 2)}
        for seed in (0, 1, 2)
        for at, (method, gain) in enumerate({"random_rest": 0.0, **gains}.items())
    )  # fmt: skip


def test_a_mean_wants_three_seeds():
    trials = cleaned({"truth": 0.02}, 0.01)
    table = noise_record.means(trials, ["kind", "method"], ["test_accuracy"])
    assert table.test_accuracy.tolist() == [pytest.approx(0.51), pytest.approx(0.54)]
    with pytest.raises(ValueError, match="3 seeds"):
        noise_record.means(trials[trials.seed < 2], ["kind", "method"], ["test_accuracy"])


def test_an_interval_of_a_share_ends_at_0_and_1():
    kept = pd.DataFrame({"kind": "a", "seed": [0, 1, 2], "wrong": [0.98, 1.0, 1.0]})
    table = noise_record.means(kept, ["kind"], ["wrong"])
    assert table.wrong_high.tolist() == [1.0]
    assert table.wrong_low[0] < 0.98


def test_a_kind_without_all_its_seeds_is_left_out_and_named(capsys):
    units = [
        {"kind": kind, "seed": seed}
        for kind, seeds in (("a", 3), ("b", 2))
        for seed in range(seeds)
    ]
    assert [unit["kind"] for unit in noise_record.whole_kinds(units)] == ["a"] * 3
    assert capsys.readouterr().out == "b: 2 of 3 seeds, left out of the record\n"


def test_a_way_beats_the_random_rest_only_beyond_holms_interval():
    gains = {"truth": 0.05, "cleaned_by_aum": 0.004, "cleaned_by_norm": 0.0}
    rows = {
        r["method"]: r for r in noise_record.less_random(cleaned(gains, 0.002)).to_dict("records")
    }
    assert set(rows) == set(gains)
    assert rows["truth"]["points"] == pytest.approx(5.2)
    assert rows["truth"]["low"] > 0
    assert rows["truth"]["p"] < 0.05
    assert rows["cleaned_by_aum"]["low"] < 0 < rows["cleaned_by_aum"]["high"]
    assert rows["cleaned_by_aum"]["p"] > 0.05


def test_a_unit_is_made_once_and_kept(archive, tmp_path, monkeypatch, capsys):
    flags = [f"--data={archive}", f"--work={tmp_path / 'work'}", f"--kept={tmp_path / 'kept'}"]
    flags += ["--seeds", "0", "--per-class", str(PER_CLASS)]
    monkeypatch.setattr(noise_study, "KINDS", ("confused",))
    monkeypatch.setattr("sys.argv", ["noise_study", *flags])
    assert noise_study.main() == 0
    (path,) = (tmp_path / "kept").iterdir()
    unit = json.loads(path.read_text())
    assert (unit["kind"], unit["examples"] > 100, unit["wrong"] > 5) == ("confused", True, True)
    assert {row["method"] for row in unit["trials"]} == {
        "all_data", "random_rest", "cleaned_by_norm", "cleaned_by_aum", "truth",
    }  # fmt: skip
    assert str(tmp_path) not in path.read_text()
    assert capsys.readouterr().out.startswith("confused-0: begins\nconfused-0: done in ")
    assert noise_study.main() == 0
    assert capsys.readouterr().out == ""
    # Gone on with where all but its end was done: what it took at first counts.
    path.unlink()
    assert noise_study.main() == 0
    again = json.loads(path.read_text())
    assert again["wall_s"] >= unit["wall_s"]
    assert again["trials"] == unit["trials"]
