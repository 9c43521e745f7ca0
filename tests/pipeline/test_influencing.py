"""Which training images pull an image's loss, against gradients by autograd at every checkpoint."""

import dataclasses
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.config import StudyConfig, TrainConfig
from raygrad.data.index import read_index
from raygrad.data.reading import read_rows, rows_of_keys
from raygrad.errors import ConfigError
from raygrad.pipeline import influencing
from raygrad.pipeline.score_inputs import score_inputs
from raygrad.pipeline.stages import training_inputs
from raygrad.report.pulled import EACH, pulled_section, read_pulls
from raygrad.report.tables import Run, read_run
from raygrad.report.thumbnails import read_thumbnails
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import MANIFEST
from raygrad.storage.manifest import read_json, read_marker, write_json, write_marker
from raygrad.training.checkpoints import Checkpoint, save_checkpoint
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.preprocess import Normalize
from tests.pipeline.making_runs import without_ray

SPEC = ImageSpec(1, 8, 8, 10)
OWN = "--network mlp --image-size 8 --mean 0 --std 1 --num-classes 10 --columns loss --features"


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    without_ray(monkeypatch)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run whose digits two checkpoints of one's own network have scored, and their files."""
    folder = tmp_path_factory.mktemp("influence")
    files = [str(folder / f"{seed}.pt") for seed in (0, 1)]
    for seed, path in enumerate(files):
        torch.save(build_network("mlp", SPEC, seed).state_dict(), path)
    run = str(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        assert cli.main(["prepare", "digits", "--run", run]) == 0
        assert cli.main(["score", "--run", run, *OWN.split(), "--checkpoint", *files]) == 0
    return run, files


def pixels_of(run, keys):
    """Normalised images and classes of some keys, as the networks see them."""
    config = pipeline.stored_config(run)
    index, inputs = read_index(RunLayout(run).data), score_inputs(config)
    rows = rows_of_keys(index, keys)
    found = {one.key: inputs.preprocess.decode(one) for one in read_rows(index, rows)}
    images = torch.from_numpy(np.stack([found[key] for key in keys])).permute(0, 3, 1, 2)
    return inputs.preprocess.normalize(images), torch.tensor(rows["label"].to_pylist())


def gradient(network, image, label):
    """The last layer's weights' gradient of one example's loss, by autograd in float64."""
    network = network.double().eval()
    loss = torch.nn.functional.cross_entropy(network(image[None].double()), label[None])
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    return torch.autograd.grad(loss, last.weight)[0].flatten()


def key_of(run, split, at=0):
    return read_index(RunLayout(run).data).rows(split)["key"].to_pylist()[at]


@pytest.mark.parametrize("split", ["test", "train"])
def test_influence_is_the_sum_of_inner_products_over_checkpoints(own, split):
    run, files = own
    key = key_of(run, split)
    config = pipeline.stored_config(run)
    [found] = pipeline.influence(config, [key], top=15, make=True)
    rows = found.rows.to_pylist()
    images, labels = pixels_of(run, [key, *(row["key"] for row in rows)])
    total = np.zeros(len(rows))
    for path in files:
        network = build_network("mlp", SPEC, 9)
        network.load_state_dict(torch.load(path))
        each = [gradient(network, *pair) for pair in zip(images, labels, strict=True)]
        total += np.array([float(one @ each[0]) for one in each[1:]])
    np.testing.assert_allclose([row["influence"] for row in rows], total, rtol=5e-3, atol=1e-4)
    assert [row["label"] for row in rows] == labels[1:].tolist()
    assert [row["rank"] for row in rows[:15]] == list(range(1, 16))
    assert rows[-1]["rank"] == found.num_images == read_index(RunLayout(run).data).rows(
        "train"
    ).num_rows  # fmt: skip
    assert found.over == "0.pt, 1.pt"
    written = pq.read_table(found.url)
    assert written["influence"].to_pylist() == [row["influence"] for row in rows]
    if split == "train":
        assert rows[0]["key"] == key or total[0] >= max(total[1:])


def test_what_ranks_first_is_first_among_all_images(own):
    """Against every training image, at one checkpoint whose features are made for it."""
    run, files = own
    config = pipeline.stored_config(run)
    keys = [key_of(run, "test", at) for at in (1, 2)]
    found = pipeline.influence(config, keys, checkpoints=files[:1], top=3, make=True)
    everyone = read_index(RunLayout(run).data).rows("train")["key"].to_pylist()
    images, labels = pixels_of(run, keys + everyone)
    network = build_network("mlp", SPEC, 0).eval()
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    entered = []
    last.register_forward_pre_hook(lambda _, given: entered.append(given[0].detach()))
    logits = network(images).detach()
    errors = logits.softmax(1) - torch.eye(10)[labels]
    values = (errors @ errors[:2].T) * (entered[0] @ entered[0][:2].T)
    for at, one in enumerate(found):
        order = np.argsort(-values[2:, at].numpy(), kind="stable")
        expected = [everyone[place] for place in np.r_[order[:3], order[-3:]]]
        assert [row["key"] for row in one.rows.to_pylist()] == expected


def test_the_command_says_what_is_lacking_and_prints_both_ends(own, tmp_path, capsys):
    run, files = own
    key = key_of(run, "test", 3)
    other = str(tmp_path / "other.pt")
    torch.save(build_network("mlp", SPEC, 5).state_dict(), other)
    line = ["influence", run, "--key", key, "--top", "2", "--checkpoint"]
    assert cli.main([*line, other]) == 2
    said = capsys.readouterr().err
    assert "needs features and errors of all training images at other.pt, got none" in said
    assert "add --make-features" in said
    assert cli.main([*line, files[0], "--make-features"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(rf"{key} \(\d\): what pulls its loss, of 1,\d+ training images", lines[0])
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[1].split()[1][0] == "+"
    assert lines[4].split()[1][0] == "-"
    assert lines[-1].endswith(f"influence/{key.replace('/', '-')}.parquet")
    assert cli.main(["influence", run, "--key", "nobody"]) == 2
    assert "keys must be in the index, got 'nobody'" in capsys.readouterr().err


def test_the_worst_test_images_are_asked_about_and_the_report_shows_what_pulls_them(own, capsys):
    """Against the losses of all test images; pictures of both ends, strongest first."""
    run, files = own
    line = ["influence", run, "--worst", "2", "--top", "8", "--make-features"]
    assert cli.main([*line, "--checkpoint", files[0]]) == 0
    capsys.readouterr()
    everyone = read_index(RunLayout(run).data).rows("test")["key"].to_pylist()
    images, labels = pixels_of(run, everyone)
    logits = build_network("mlp", SPEC, 0).eval()(images).detach()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    losses[logits.argmax(1) == labels] = -1
    expected = [everyone[at] for at in losses.argsort(descending=True)[:2].tolist()]
    assert pipeline.worst_keys(pipeline.stored_config(run), 2) == expected

    read = read_run(run)
    pulls, total = read_pulls(read)
    assert total == len(pulls)
    assert set(expected) <= {pull.query for pull in pulls}
    [pull] = [one for one in pulls if one.query == expected[0]]
    lowering, raising = (one["influence"].to_pylist() for one in pull.ends())
    assert lowering == sorted(lowering, reverse=True)
    assert raising == sorted(raising)
    assert len(lowering) == len(raising) == EACH
    assert min(lowering) > 0 > max(raising)
    thumbnails, _ = read_thumbnails(read.index, [pull.query, *pull.keys], 1)
    section = pulled_section(read, [pull], total, thumbnails)
    [shown] = section.parts
    assert shown.count('class="tile"') == 2 * EACH
    assert all(f'data-key="{key}"' in shown for key in pull.keys)
    assert f"1 of {total} images" in section.intro[0]
    assert cli.main(["influence", run]) == 2
    assert "Give --key, or --worst" in capsys.readouterr().err


def test_a_run_without_influences_has_no_such_section(tmp_path):
    pulls, total = read_pulls(Run(str(tmp_path), "none"))
    assert (pulls, total) == ([], 0)
    assert not pulled_section(Run(str(tmp_path), "none"), pulls, total, {}).parts


@pytest.fixture
def trained(tmp_path):
    """A run that holds a trained network, and two epochs that it kept."""
    config = StudyConfig(str(tmp_path / "run"), train=TrainConfig(network="mlp", epochs=3))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source="digits"))
    pipeline.bind(config)
    pipeline.prepare(config)
    layout = RunLayout(config.run)
    network = [build_network("mlp", SPEC, seed).state_dict() for seed in range(3)]
    checkpoints = [Checkpoint("mlp", SPEC, Normalize((0.5,), (0.3,)), one) for one in network]
    save_checkpoint(layout.checkpoint("mlp"), checkpoints[0])
    for epoch in (1, 2):
        save_checkpoint(layout.kept_checkpoint("mlp", epoch), checkpoints[epoch])
    rates = [{"epoch": epoch, "learning_rate": 0.1 * epoch} for epoch in (1, 2, 3)]
    write_json(layout.metrics("mlp"), {"history": rates})
    inputs = training_inputs(config)
    write_marker(layout.marker("train-mlp"), inputs, digest=checkpoints[0].digest(), code={})
    return config


def test_epochs_that_training_kept_count_by_their_learning_rates(trained):
    key = key_of(trained.run, "test")
    kept = dataclasses.replace(
        trained, train=dataclasses.replace(trained.train, keep_epochs=(1, 2))
    )
    [found] = pipeline.influence(kept, [key], top=5, make=True)
    assert found.over == "epoch 1, epoch 2"
    rows = found.rows.to_pylist()
    images, labels = pixels_of(trained.run, [key, *(row["key"] for row in rows)])
    total = np.zeros(len(rows))
    for epoch in (1, 2):
        network = build_network("mlp", SPEC, epoch)
        each = [gradient(network, *pair) for pair in zip(images, labels, strict=True)]
        total += 0.1 * epoch * np.array([float(one @ each[0]) for one in each[1:]])
    np.testing.assert_allclose([row["influence"] for row in rows], total, rtol=5e-3, atol=1e-4)


def test_without_kept_epochs_the_best_one_is_taken_and_it_is_said(trained, caplog):
    [found] = pipeline.influence(trained, [key_of(trained.run, "test")], top=2, make=True)
    assert found.over == "the best epoch"
    assert "train with --keep-epochs to sum over more" in caplog.text
    with pytest.raises(ConfigError, match="top at least 1"):
        pipeline.influence(trained, ["a"], top=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shards": 0}, "got those of 0 of 1 shards"),
        ({"loss": "own:loss"}, "got none"),
        ({"code": "another"}, "got none"),
    ],
)
def test_features_of_other_losses_code_or_of_fewer_shards_are_not_taken(
    change, text, own, monkeypatch
):
    run, files = own
    config, key = pipeline.stored_config(run), key_of(run, "test")
    pipeline.influence(config, [key], checkpoints=files[:1], make=True)
    pipeline.influence(config, [key], checkpoints=files[:1])

    def read(url):
        found = read_json(url)
        if url.endswith(MANIFEST):
            found["provenance"] |= {name: of for name, of in change.items() if name != "shards"}
            found["shards"] = found["shards"][: change.get("shards")]
        return found

    monkeypatch.setattr(influencing, "read_json", read)
    with pytest.raises(ConfigError, match=text):
        pipeline.influence(config, [key], checkpoints=files[:1])


@pytest.mark.parametrize("stage", ["prepare", "train-mlp"])
def test_the_report_leaves_out_what_pulled_in_other_data_or_another_network(stage, trained):
    layout, key = RunLayout(trained.run), key_of(trained.run, "test")
    [found] = pipeline.influence(trained, [key], top=2, make=True)
    run = read_run(trained.run)
    assert [pull.query for pull in read_pulls(run)[0]] == [key]
    assert pulled_section(run, [], 0, {}).intro == []
    marker = read_marker(layout.marker(stage))
    write_json(layout.marker(stage), marker | {"digest": "another"})
    assert read_pulls(run) == ([], 0)
    assert "1 that is of other data or another network" in pulled_section(run, [], 0, {}).intro[0]
    older = pq.read_table(found.url).replace_schema_metadata(None)
    pq.write_table(older, found.url)
    assert len(read_pulls(run)[0]) == 1, "older ones do not say what they are of"
