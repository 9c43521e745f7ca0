"""An audit from a folder: planted errors and copies come first, nothing is done twice, it nests."""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from raygrad import pipeline
from raygrad.audit.keeping import REPEAT
from raygrad.cli import command
from raygrad.config import TrainConfig
from raygrad.config.auditing import AuditConfig
from raygrad.data.index import read_index, read_table
from raygrad.errors import ConfigError
from raygrad.pipeline import audit_judging, audit_looking
from raygrad.pipeline.audit_findings import find_repeats
from raygrad.pipeline.audit_looking import look
from raygrad.report.audit_browser import views
from raygrad.runs.audit_tables import read_audit
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import write_manifest, write_part
from raygrad.runs.subsets import read_subset
from raygrad.storage import files
from raygrad.training.models import ImageSpec, build_network
from tests.pipeline.making_runs import without_ray

WRONG, COPIES, CONTRADICTED, NUMBER = 16, 12, 3, 400
FLAGS = ("--network", "linear", "--folds", "2", "--epochs", "8")
OPTIONS = AuditConfig(network="linear", folds=2, epochs=8)


def digit_folders(root):
    """Digits as class folders, of which some are labelled wrongly, with copies, one broken file."""
    data = load_digits()
    images, labels = (data.images * 15.9).astype(np.uint8)[:NUMBER], data.target[:NUMBER].copy()
    labels[:WRONG] = (labels[:WRONG] + 3) % 10
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{at:04d}.png")
    for at in range(100, 100 + COPIES):
        Image.fromarray(images[at]).save(root / f"class{labels[at]}" / f"copy{at}.png")
    for at in range(200, 200 + CONTRADICTED):
        Image.fromarray(images[at]).save(root / f"class{(labels[at] + 1) % 10}" / f"other{at}.png")
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(root / "class0" / "blank.png")
    (root / "class0" / "broken.png").write_bytes(
        (root / "class0" / "blank.png").read_bytes()[:60] + b"no picture"
    )
    return root


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The folder and the run that the command audits, in one go."""
    folder = tmp_path_factory.mktemp("audit")
    digit_folders(folder / "digits")
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        status = command.main(
            ["audit", str(folder / "digits"), "--run", str(folder / "run"), *FLAGS]
        )
    assert status == 0
    return folder


@pytest.fixture(scope="module")
def tables(audited):
    return read_audit(RunLayout(str(audited / "run")).audit)


def numbers(keys):
    return [int(key.rsplit("/", 1)[-1]) for key in keys if key.rsplit("/", 1)[-1].isdigit()]


def test_planted_wrong_labels_come_first_with_the_right_label_suggested(tables):
    """200 digits and a linear network are right 4 times of 5, and yet tell them apart."""
    found, summary = tables
    rows = [row for row in found["labels"].to_pylist() if numbers([row["key"]])]
    at = np.array([numbers([row["key"]])[0] for row in rows])
    wrong = at < WRONG
    assert roc_auc_score(wrong, -np.arange(len(rows))) > 0.9
    assert wrong[:WRONG].sum() >= WRONG / 2
    truth = load_digits().target
    right = [rows[i]["suggested_name"] == f"class{truth[at[i]]}" for i in np.flatnonzero(wrong)]
    assert np.mean(right) >= 0.6
    assert found["labels"]["rank"].to_pylist() == list(range(1, summary["num_examples"] + 1))
    assert summary["num_wrong_low"] <= summary["num_wrong"] <= summary["num_wrong_high"]


def test_used_and_rejected_are_the_index(audited, tables):
    found, summary = tables
    index = read_index(RunLayout(str(audited / "run")).data)
    used = sorted(found["labels"]["key"].to_pylist())
    rejected = rejects_of(audited)
    assert len(used) + len(rejected) + index.rejects.num_rows == NUMBER + COPIES + CONTRADICTED + 2
    assert summary["num_examples"] == len(used)
    assert sorted(found["outliers"]["key"].to_pylist()) == used


def rejects_of(audited):
    url = f"{audited}/run/audit/rejects.parquet"
    return read_table(url).to_pylist()


def test_copies_are_groups_and_one_of_each_stays(tables):
    found, _ = tables
    rows = found["repeats"].to_pylist()
    exact = [row for row in rows if row["kind"] == "exact" and not row["across_labels"]]
    assert len({row["group"] for row in exact}) == COPIES
    assert sum("copy" in row["key"] for row in exact) == COPIES
    gone = {row["key"] for row in found["drop"].to_pylist() if row["reason"] == REPEAT}
    for group in {row["group"] for row in exact if row["split"] == "train"}:
        members = [row for row in exact if row["group"] == group]
        stay = [row for row in members if row["key"] not in gone]
        assert stay, "a picture is left out altogether"
        if any(row["split"] == "test" for row in members):
            assert all(row["split"] != "train" for row in stay), "the test image is trained on"


def test_equal_pictures_under_two_labels_come_first_and_are_told_of(audited, tables):
    found, summary = tables
    rows = [row for row in found["repeats"].to_pylist() if row["across_labels"]]
    assert len({row["group"] for row in rows}) == summary["num_across_labels"] == CONTRADICTED
    names = {at: {r["label_name"] for r in rows if str(at) in r["key"]} for at in range(200, 203)}
    assert all(len(of) == 2 for of in names.values())
    leaked = {r["group"] for r in found["repeats"].to_pylist() if r["across_splits"]}
    assert len(leaked) == summary["num_across_splits"] > 0
    shown = {view.name: view for view in views(found)}
    assert shown["contradictions"].keys == [row["key"] for row in rows]
    assert {row["group"] for row in shown["leaks"].rows} == leaked


def test_a_blank_picture_is_named(tables):
    found, _ = tables
    first = found["outliers"].slice(0, 1).to_pylist()[0]
    assert (first["key"].rsplit("/", 1)[-1], first["reason"]) == ("blank", "blank")


def test_kept_and_dropped_are_the_training_split_and_kept_is_a_subset(audited, tables):
    found, summary = tables
    keep, origin = read_subset(f"{audited}/run/audit/keep.parquet")
    index = read_index(RunLayout(str(audited / "run")).data)
    train = set(index.rows("train")["key"].to_pylist())
    kept, gone = set(keep["key"].to_pylist()), set(found["drop"]["key"].to_pylist())
    bad = {row["key"] for row in rejects_of(audited)}
    assert kept | gone | (bad & train) == train
    assert not kept & gone
    assert set(keep["weight"].to_pylist()) == {1.0}
    assert origin["method"] == "keep"
    assert summary["num_kept"] == len(kept)


def again(audited, options, caplog):
    config = pipeline.stored_config(str(audited / "run"))
    with caplog.at_level(logging.INFO, "raygrad"):
        return pipeline.audit(config, options)


def test_the_same_audit_is_skipped_and_another_share_trains_nothing_again(
    audited, tables, caplog, monkeypatch
):
    again(audited, OPTIONS, caplog)
    assert "audit: complete, skipped" in caplog.text

    def trained(*given):
        raise AssertionError("a fold that is there is trained again")

    monkeypatch.setattr(audit_judging, "judged_fold", trained)
    previous = None
    for goal in ("clean", "coverage", "accuracy"):
        for share in (0.3, 0.6):
            options = AuditConfig(
                network="linear", folds=2, epochs=8, goal=goal, keep_fraction=share
            )
            facts = again(audited, options, caplog)
            total = facts["num_kept"] + facts["num_dropped"]
            assert facts["num_kept"] == round(share * total)
            kept = set(read_audit(f"{audited}/run/audit")[0]["keep"]["key"].to_pylist())
            assert share == 0.3 or previous <= kept, "a larger share keeps what a smaller one does"
            previous = kept
    again(audited, OPTIONS, caplog)


def test_no_copy_stands_in_another_fold():
    labels = np.arange(40) % 4
    hashes = np.random.default_rng(0).integers(0, 2**63, 40).astype(np.uint64)
    groups = np.where(np.arange(40) < 12, np.arange(40) // 3, -1)
    folds = audit_judging.fold_of_groups(labels, hashes, groups, 5, seed=0)
    for group in range(4):
        assert len(set(folds[groups == group].tolist())) == 1


@pytest.mark.parametrize("different", [1, 2])
def test_few_pictures_many_times_are_judged_by_the_folds_there_are(different, tmp_path, capsys):
    """Copies share a fold, so that others are empty; of one picture alone nothing is learned."""
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for at in range(6):
            pixels = np.zeros((8, 8, 3), np.uint8)
            pixels[:, : 1 + at % different] = 200
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{at}.png")
    run = str(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        flags = ["--network", "linear", "--epochs", "1", "--folds", "4", "--run", run]
        status = command.main(["audit", str(tmp_path / "data"), *flags])
    if different == 1:
        assert status == 2
        assert "pictures that differ, got 12 copies of one" in capsys.readouterr().err
        return
    tables, _ = read_audit(RunLayout(run).audit)
    assert status == 0
    assert np.isfinite(tables["labels"]["loss"].to_numpy()).all()
    assert tables["labels"].num_rows == 12


def test_with_a_checkpoint_heads_on_its_features_judge(audited, tmp_path, caplog):
    """Also of a network that tells other classes apart: its features are what is used."""
    torch.manual_seed(0)
    path = tmp_path / "net.pt"
    torch.save(build_network("mlp", ImageSpec(3, 8, 8, 17), 0).state_dict(), path)
    options = AuditConfig(
        network="mlp", checkpoint=str(path), num_classes=17, image_size=8, folds=3
    )
    facts = again(audited, replace(options, check=True), caplog)
    check = facts["check"]
    assert check["trainings"] == {"all": 1, "kept": 1, "random": 3}
    assert check["sizes"]["kept"] == check["sizes"]["random"] == facts["num_kept"]
    assert check["sizes"]["all"] == facts["num_kept"] + facts["num_dropped"]
    assert 0.6 < check["accuracy"]["kept"] <= 1
    table = read_audit(f"{audited}/run/audit")[0]["check"]
    assert table["set"].to_pylist() == ["all", "kept", "random", "random", "random"]
    facts = again(audited, options, caplog)
    assert "check" not in read_audit(f"{audited}/run/audit")[0], "a check of another audit"
    assert facts["how"] == "linear heads on features of mlp, in 3 folds"
    assert facts["accuracy"] > 0.7
    assert len(facts["near"]) == 1, "one sentence says how near copies were told from chance"
    top = read_audit(f"{audited}/run/audit")[0]["labels"].slice(0, WRONG)["key"].to_pylist()
    assert sum(at < WRONG for at in numbers(top)) >= 0.4 * WRONG


def test_looking_goes_on_where_it_was_interrupted(audited, tmp_path, monkeypatch):
    """Within a shard too: a folder of photographs is one shard."""
    index = read_index(RunLayout(str(audited / "run")).data)
    whole = look(index, 3, None, str(tmp_path / "a"))
    monkeypatch.setattr(audit_looking, "_PART", 64)
    old, made = audit_looking._look_at, []

    def stopped(index, rows, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(rows["key"].to_pylist()[0])
        return old(index, rows, *rest)

    monkeypatch.setattr(audit_looking, "_look_at", stopped)
    with pytest.raises(KeyboardInterrupt):
        look(index, 3, None, str(tmp_path / "b"))
    monkeypatch.setattr(
        audit_looking,
        "_look_at",
        lambda i, rows, *rest: made.append(rows["key"].to_pylist()[0]) or old(i, rows, *rest),
    )
    assert look(index, 3, None, str(tmp_path / "b")).rows == whole.rows
    assert len(made) == len(set(made)) > 3
    assert (find_repeats(whole).groups >= 0).sum() >= 2 * COPIES


def test_an_audit_that_was_killed_goes_on_with_the_folds_that_are_left(
    audited, caplog, monkeypatch
):
    """And comes to what it would have come to: the fold that was done is not trained again."""
    options = AuditConfig(network="linear", folds=2, epochs=2, seed=3)
    train, done = audit_judging.judged_fold, []
    before = read_audit(f"{audited}/run/audit")[0]["labels"]

    def killed(*given):
        if done:
            raise KeyboardInterrupt
        done.append(train(*given))
        return done[0]

    monkeypatch.setattr(audit_judging, "judged_fold", killed)
    with pytest.raises(KeyboardInterrupt):
        again(audited, options, caplog)
    assert read_audit(f"{audited}/run/audit")[0]["labels"] == before, "the one before stays whole"
    calls = []
    monkeypatch.setattr(
        audit_judging, "judged_fold", lambda *given: calls.append(1) or train(*given)
    )
    again(audited, options, caplog)
    assert len(calls) == 1
    interrupted = read_audit(f"{audited}/run/audit")[0]["labels"]
    pipeline.audit(stored(audited), options, redo=True)
    assert len(calls) == 3, "redo trains every fold again"
    assert read_audit(f"{audited}/run/audit")[0]["labels"] == interrupted


def stored(audited):
    return pipeline.stored_config(str(audited / "run"))


def test_what_the_run_has_scored_stands_beside_the_ranking(audited, caplog):
    """And the table is written again when there is more of it, with what it ranks unchanged."""
    layout = RunLayout(str(audited / "run"))
    keys = read_index(layout.data).rows("train")["key"].to_pylist()
    again(audited, OPTIONS, caplog)
    before = read_audit(layout.audit)[0]["labels"]
    # Of two folds an example is trained on in one, where one in ten chooses the epoch.
    assert 0.8 < 1 - before["aum"].null_count / before.num_rows < 0.97
    for name, column in (("linear", "grad_l2_weights"), ("linear-dynamics", "aum")):
        url = layout.scores(name)
        values = pa.array([float("nan"), *np.arange(1.0, len(keys))])
        write_part(url, "s", pa.table({"key": keys, column: values}), {"of": name})
        write_manifest(url, ["s"], {"of": name}, 0.0)
    config = replace(stored(audited), train=TrainConfig(network="linear"))
    pipeline.audit(config, OPTIONS)
    found = read_audit(layout.audit)[0]["labels"]
    beside = dict(zip(found["key"].to_pylist(), found["grad_l2_weights"].to_pylist(), strict=True))
    assert [beside[key] for key in keys[:3]] == [None, 1.0, 2.0]
    assert all(beside[key] is None for key in set(beside) - set(keys))
    assert found.select(["key", "rank", "aum"]) == before.select(["key", "rank", "aum"])
    files.remove(files.join(layout.url, "scores"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"keep_fraction": 1.5}, r"keep_fraction must be in \(0, 1\]"),
        ({"goal": "best"}, "goal must be of"),
        ({"ranking": "best"}, "ranking must be of"),
        ({"ranking": "aum", "network": "mlp", "checkpoint": "n.pt"}, "watch a training"),
        ({"checkpoint": "net.pt"}, "Give --network"),
        ({"std": (0.0,)}, "std above 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        AuditConfig(**options)


def test_wrong_usage_is_one_line_and_status_2(audited, capsys):
    assert command.main(["audit"]) == 2
    assert "Give --run" in capsys.readouterr().err
    assert command.main(["audit", "--run", f"{audited}/none"]) == 2
    assert "prepare" in capsys.readouterr().err
    assert command.main(["audit", "--run", f"{audited}/run", "--network", "nett"]) == 2
    assert "nett" in capsys.readouterr().err
