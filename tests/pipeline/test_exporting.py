"""What comes out of a run is read by the tools it is for."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from raygrad import cli, pipeline
from raygrad.config import DataConfig, ScoreConfig, SelectConfig, StudyConfig, TrainConfig
from raygrad.data.decode import decode_image
from raygrad.data.export_formats import write_class_folders, write_fiftyone, write_huggingface
from raygrad.data.index import build_index, read_index
from raygrad.data.reading import read_rows
from raygrad.errors import ConfigError
from raygrad.runs import score_table
from raygrad.runs.layout import RunLayout
from tests.data.making import examples, jpeg, png, put, tar
from tests.pipeline.test_rejects import prepare_here

CLASSES = ("cat", "dog, spotted", "ant")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run of 30 examples in two shards with class names, scored; made without Ray."""
    folder = tmp_path_factory.mktemp("scored")
    for shard in range(2):
        members = []
        for at in range(15):
            key, kind = f"{'abc'[at % 3]}/img{shard}{at:02d}", ("JPEG", "png")[at % 2]
            members.append((f"{key}.{kind}", jpeg(at, (8, 8)) if kind == "JPEG" else png(at)))
            members.append((f"{key}.cls", CLASSES[at % 3].encode()))
        put(folder, f"own-{shard}.tar", tar(members))
    config = StudyConfig(
        run=str(folder / "run"),
        data=DataConfig(tars=(str(folder / "own-*.tar"),), val_fraction=0.2),
        train=TrainConfig(network="linear"),
        score=ScoreConfig(columns=("loss",)),
        select=SelectConfig(
            methods=("random",), keep_fractions=(0.5,), seeds=(0,), score_column="loss"
        ),
    )
    pipeline.bind(config)
    prepare_here(config)
    layout = RunLayout(config.run)
    index = read_index(layout.data)
    rows, url = index.rows("train"), layout.scores("linear")
    for shard in ("own-0", "own-1"):
        part = index.rows("train", shard)
        table = part.select(["key", "shard", "label"])
        size = table.num_rows
        table = table.append_column("loss", pa.array(np.linspace(0, 1, size), pa.float32()))
        table = table.append_column("prediction", pa.array([at % 3 for at in range(size)]))
        table = table.append_column("correct", pa.array([at % 2 == 0 for at in range(size)]))
        score_table.write_part(url, shard, table, {"checkpoint": "x"})
    score_table.write_manifest(url, ["own-0", "own-1"], {"checkpoint": "x"}, 0.0)
    keys = rows["key"].to_pylist()[::2]
    subset = folder / "mine-0.parquet"
    pq.write_table(pa.table({"key": keys}), subset)
    return config, str(subset), keys


def test_scores_as_csv_parquet_and_on_standard_output_are_one_table(scored, tmp_path, capsys):
    config, _, _ = scored
    out = tmp_path / "scores.csv"
    assert cli.main(["scores", config.run, "--out", str(out)]) == 0
    assert cli.main(["scores", config.run, "--out", str(tmp_path / "scores.parquet")]) == 0
    capsys.readouterr()
    assert cli.main(["scores", config.run]) == 0
    assert capsys.readouterr().out == out.read_text()
    rows = list(csv.DictReader(out.open()))
    table = pq.read_table(tmp_path / "scores.parquet")
    index = read_index(RunLayout(config.run).data)
    assert table["key"].to_pylist() == [row["key"] for row in rows]
    assert table.num_rows == index.rows("train").num_rows
    for row in rows:
        assert row["file"] in (f"{row['key']}.JPEG", f"{row['key']}.png")
        assert row["label_name"] == index.classes[int(row["label"])]
        assert row["predicted_name"] == index.classes[int(row["predicted"])]
        assert row["split"] == "train"
        assert 0 <= float(row["loss"]) <= 1


def test_a_wrong_ending_or_a_run_without_scores_is_one_line(scored, tmp_path, capsys):
    config, _, _ = scored
    assert cli.main(["scores", config.run, "--out", "scores.xlsx"]) == 2
    assert "must end in .csv" in capsys.readouterr().err
    assert cli.main(["scores", config.run, "--network", "cnn"]) == 2
    assert "raygrad score" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet", "txt"])
def test_a_subset_lists_what_it_keeps_and_what_it_drops(scored, kind):
    config, subset, keys = scored
    everything = read_index(RunLayout(config.run).data).rows("train")["key"].to_pylist()
    url = pipeline.write_subset_list(config, subset, kind)
    if kind == "txt":
        dropped = Path(url.replace("-kept", "-dropped")).read_text().splitlines()
        kept = Path(url).read_text().splitlines()
    else:
        rows = (
            list(csv.DictReader(Path(url).read_text().splitlines()))
            if kind == "csv"
            else pq.read_table(url).to_pylist()
        )
        kept = [row["key"] for row in rows if row["kept"] in (True, "true")]
        dropped = [row["key"] for row in rows if row["kept"] in (False, "false")]
        assert {float(row["weight"]) for row in rows if row["key"] in set(dropped)} == {0.0}
    assert sorted(kept) == sorted(keys)
    assert sorted(kept + dropped) == sorted(everything)


def originals(config, keys):
    index = read_index(RunLayout(config.run).data)
    return {e.key: e for e in read_rows(index, index.rows("train")) if e.key in set(keys)}


def test_class_folders_hold_the_same_bytes(scored, tmp_path):
    config, subset, keys = scored
    out = tmp_path / "out"
    line = ["export", subset, "--run", config.run, "--out", str(out), "--format", "folders"]
    assert cli.main(line) == 0
    found = {path for path in out.rglob("*.*") if path.is_file()}
    assert len(found) == len(keys)
    assert cli.main(line) == 2, "class folders are there, whatever their names"
    classes = read_index(RunLayout(config.run).data).classes
    for key, example in originals(config, keys).items():
        (path,) = (out / classes[example.label]).glob(f"{key.replace('/', '__')}.*")
        assert path.read_bytes() == example.image


def test_an_export_into_a_folder_with_files_is_refused(scored, tmp_path, capsys):
    config, subset, _ = scored
    (tmp_path / "there").write_text("x")
    for kind in ("folders", "huggingface", "fiftyone"):
        line = ["export", subset, "--run", config.run, "--out", str(tmp_path), "--format", kind]
        assert cli.main(line) == 2
        assert "empty folder" in capsys.readouterr().err


def test_names_that_would_meet_or_do_not_fit_are_refused(tmp_path):
    keys = {"two": ("a/b", "a__b"), "long": ("c", "d" * 250)}
    for name, of in keys.items():
        shard = put(tmp_path, f"{name}.tar", examples(of, 1))
        index = build_index([str(shard)], [], val_fraction=0.0)
        for write in (write_class_folders, write_fiftyone):
            with pytest.raises(ConfigError, match="Export as webdataset or huggingface"):
                write(index, index.examples, str(tmp_path / "out"))
            assert not (tmp_path / "out").exists()
        assert write_huggingface(index, index.examples, str(tmp_path / f"hf-{name}")) == 2


def test_a_class_is_a_folder_inside_the_export_whatever_it_is_called(tmp_path):
    classes = ("..", ".", "a/b")
    members = [
        (f"{at}.{ending}", content)
        for at, name in enumerate(classes)
        for ending, content in (("png", png(at)), ("cls", name.encode()))
    ]
    index = build_index([str(put(tmp_path, "x.tar", tar(members)))], [], val_fraction=0.0)
    assert write_class_folders(index, index.examples, str(tmp_path / "out")) == 3
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert names == ["out/_/1.png", "out/__/0.png", "out/a__b/2.png"]


@pytest.mark.parametrize("kind", ["huggingface", "fiftyone", "folders"])
def test_weights_of_a_draw_go_along_or_are_said_to_be_lost(scored, tmp_path, kind, caplog):
    config, _, keys = scored
    subset, weights = tmp_path / "mine-0.parquet", [1.5 + at for at in range(len(keys))]
    pq.write_table(pa.table({"key": keys, "weight": weights}), subset)
    assert pipeline.export_as(config, str(subset), str(tmp_path / "out"), kind) == len(keys)
    wanted = dict(zip(keys, weights, strict=True))
    if kind == "huggingface":
        (file,) = (tmp_path / "out").glob("*.parquet")
        rows = pq.read_table(file).to_pylist()
        assert {row["key"]: row["weight"] for row in rows} == wanted
    elif kind == "fiftyone":
        said = json.loads((tmp_path / "out" / "labels.json").read_text())["labels"].values()
        assert {one["attributes"]["key"]: one["attributes"]["weight"] for one in said} == wanted
    else:
        assert "folders hold no weights" in caplog.text


def test_datasets_opens_the_export_with_images_names_and_scores(scored, tmp_path):
    datasets = pytest.importorskip("datasets")
    config, subset, keys = scored
    out = tmp_path / "hf"
    assert pipeline.export_as(config, subset, str(out), "huggingface") == len(keys)
    data = datasets.load_dataset(
        "parquet", data_dir=str(out), split="train", cache_dir=str(tmp_path / "cache")
    )
    classes = read_index(RunLayout(config.run).data).classes
    assert data.features["label"].names == list(classes)
    found = originals(config, keys)
    assert sorted(data["key"]) == sorted(keys)
    for row in data:
        example = found[row["key"]]
        assert row["label"] == example.label
        assert 0 <= row["loss"] <= 1
        pixels = np.asarray(row["image"].convert("RGB"))
        np.testing.assert_array_equal(pixels, decode_image(example.image))


def test_a_fiftyone_folder_is_as_its_import_format_says(scored, tmp_path):
    """labels.json with classes and a label a file stem; data/ with a file of each stem."""
    config, subset, keys = scored
    out = tmp_path / "fo"
    assert pipeline.export_as(config, subset, str(out), "fiftyone") == len(keys)
    said = json.loads((out / "labels.json").read_text())
    assert set(said["labels"]) == {path.stem for path in (out / "data").iterdir()}
    assert len(said["labels"]) == len(keys)
    for label in said["labels"].values():
        assert said["classes"][label["label"]] in CLASSES
        assert {"key", "loss", "prediction"} <= set(label["attributes"])


def probabilities(folder, config, keys, name="p.parquet", **changed):
    """A table of probabilities in another order, with examples that are not exported."""
    index = read_index(RunLayout(config.run).data)
    everything = [*index.rows("train")["key"].to_pylist()[::-1], "another"]
    chance = np.random.default_rng(0).dirichlet(np.ones(3), len(everything))
    columns = {f"prob_{name}": chance[:, at] for at, name in enumerate(index.classes)}
    for column, value in changed.items():
        columns[column] = [str(at) if value is None else value for at in range(len(everything))]
    table = pa.table({"key": everything} | columns)
    (pq.write_table if name.endswith("parquet") else pa_csv.write_csv)(table, folder / name)
    return str(folder / name), {key: chance[at] for at, key in enumerate(everything)}


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_cleanlab_reads_labels_and_the_probabilities_of_the_same_examples(scored, tmp_path, name):
    config, subset, keys = scored
    url, chance = probabilities(tmp_path, config, keys, name)
    out = tmp_path / "out"
    line = ["export", subset, "--run", config.run, "--out", str(out), "--format", "cleanlab"]
    assert cli.main([*line, "--probabilities", url]) == 0
    labels, found = np.load(out / "labels.npy"), np.load(out / "pred_probs.npy")
    rows = list(csv.DictReader((out / "examples.csv").open()))
    own = originals(config, keys)
    assert sorted(row["key"] for row in rows) == sorted(keys)
    assert labels.tolist() == [own[row["key"]].label for row in rows]
    np.testing.assert_allclose(found, [chance[row["key"]] for row in rows], rtol=1e-6)
    assert "loss" in rows[0]
    cleanlab = pytest.importorskip("cleanlab.rank")
    quality = cleanlab.get_label_quality_scores(labels, found)
    np.testing.assert_allclose(quality, found[np.arange(len(labels)), labels], rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (None, "out-of-sample probabilities, got none"),
        ({"prob_cat": 7.0}, "Give probabilities, not logits"),
        ({"prob_cat": np.nan}, "Give probabilities, not logits"),
        ({"key": None}, "got none of 15 of 15, such as"),
        ({"key": "a/img000"}, "stand once"),
    ],
)
def test_what_are_no_probabilities_of_every_example_is_refused(
    scored, tmp_path, changed, text, capsys
):
    config, subset, keys = scored
    line = ["export", subset, "--run", config.run, "--format", "cleanlab"]
    line += ["--out", str(tmp_path / "out")]
    if changed is not None:
        line += ["--probabilities", probabilities(tmp_path, config, keys, **changed)[0]]
    assert cli.main(line) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_class_without_a_column_and_another_format_are_refused(scored, tmp_path, capsys):
    config, subset, keys = scored
    url, _ = probabilities(tmp_path, config, keys)
    pq.write_table(pq.read_table(url).drop_columns(["prob_cat"]), url)
    line = ["export", subset, "--run", config.run, "--out", str(tmp_path / "out")]
    line += ["--probabilities", url, "--format"]
    assert cli.main([*line, "cleanlab"]) == 2
    assert "the columns key and prob_cat" in capsys.readouterr().err
    for other in ("webdataset", "folders"):
        assert cli.main([*line, other]) == 2
        assert f"must be for cleanlab, got format {other}" in capsys.readouterr().err
