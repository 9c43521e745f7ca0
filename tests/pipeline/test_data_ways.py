"""Where images come from: what fits is chosen, and said with its reason; no Ray is started."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from raygrad.config import DataConfig, StudyConfig, SweepConfig, TrainConfig
from raygrad.data.index import build_index, write_index
from raygrad.data.shards import DATASET_FILE
from raygrad.engine.decoding import Room
from raygrad.errors import ConfigError
from raygrad.pipeline import data_ways
from raygrad.pipeline.data_ways import is_streamed, training_data, trial_data
from raygrad.pipeline.forecasting import _with_decoding
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import write_json
from raygrad.training.plan import Rates
from raygrad.training.study_data import StudyData
from tests.data.making import example, jpeg, put


def indexed(folder, image_size):
    """A run whose 24 photographs are indexed, 14,112 bytes where they are squares of 14 pixels."""
    urls = []
    for split, numbers in (("train", range(18)), ("test", range(18, 24))):
        members = [m for n in numbers for m in example(f"{n:02d}", n % 2, "jpg", jpeg(n, (30, 28)))]
        urls.append(put(folder, f"{split}.tar", members))
    config = StudyConfig(
        run=str(folder / "run"),
        data=DataConfig(image_size=image_size),
        train=TrainConfig(network="linear", lr_decay_epochs=()),
    )
    layout = RunLayout(config.run)
    write_index(layout.data, build_index(urls[:1], urls[1:], val_fraction=0.3))
    facts = {"num_classes": 2, "channels": 3, "image_size": image_size}
    write_json(files.join(layout.data, DATASET_FILE), facts)
    return config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return indexed(tmp_path_factory.mktemp("study"), 14)


def with_(config, data=None, train=None, sweep=None):
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **(data or {})),
        train=dataclasses.replace(config.train, **(train or {})),
        sweep=dataclasses.replace(config.sweep, **(sweep or {})),
    )


@pytest.mark.parametrize(
    ("data", "train", "says"),
    [
        ({}, {}, "14.1 kB decoded, in memory: at most memory_bytes, 4.3 GB"),
        (
            {"memory_bytes": 10_000},
            {},
            "kept in CACHE of each node: more than memory_bytes, 10.0 kB, and the disk has room",
        ),
        (
            {"memory_bytes": 10_000, "cache_bytes": 10_000},
            {},
            "streamed, 14.1 kB decoded every epoch and not kept: more than memory_bytes, 10.0 kB, "
            "and than CACHE has room for, 10.0 kB",
        ),
        ({}, {"data": "stream"}, "streamed, 14.1 kB decoded every epoch and not kept: as asked"),
        ({}, {"data": "disk"}, "kept in CACHE of each node: as asked"),
        (
            {"memory_bytes": 10_000},
            {"data": "memory"},
            "in memory: as asked, beyond memory_bytes of 10.0 kB",
        ),
        ({}, {"augment": "photo_crop"}, "photo_crop cuts images out of the stored photographs"),
    ],
)
def test_the_choice_and_its_reason_are_said_in_one_line(study, tmp_path, caplog, data, train, says):
    config = with_(study, {**data, "cache_dir": str(tmp_path)}, train)
    data_ways.study_data.cache_clear()
    with caplog.at_level("INFO", "raygrad"):
        found = training_data(config)
    (line,) = [one.getMessage() for one in caplog.records if "data: " in one.getMessage()]
    assert says.replace("CACHE", str(tmp_path)) in line
    opened = found if isinstance(found, StudyData) else found.open()
    assert opened.num_examples == {"train": 15, "val": 3, "test": 6}
    assert is_streamed(config) == ("streamed" in line) == is_streamed(config, for_trials=True)
    np.testing.assert_array_equal(
        opened.examples("test", loaders=0).between(0, 6).numpy(),
        training_data(study).test.images,
    )


@pytest.mark.parametrize(
    ("folder", "num_bytes", "is_said"),
    [("s3://b", 2**28, True), ("s3://b", 2**20, False), ("/data", 2**28, False)],
)
def test_what_an_order_without_a_buffer_costs_on_a_server_is_said(
    folder, num_bytes, is_said, monkeypatch, caplog
):
    """Where the data are more than is read at a time, streamed, and the user chose no buffer."""
    index = SimpleNamespace(
        shards=pa.table({"url": [f"{folder}/0.tar"]}),
        examples=pa.table({"size": [num_bytes // 2, num_bytes // 2]}),
    )
    layout = SimpleNamespace(data="data")
    monkeypatch.setattr(data_ways, "read_index", lambda _: index)
    monkeypatch.setattr(data_ways, "facts_of_data", lambda _: {"num_classes": 2, "channels": 3})
    monkeypatch.setattr(data_ways, "transform_of", lambda _: None)
    monkeypatch.setattr(data_ways, "decoded_bytes", lambda *_: num_bytes)
    monkeypatch.setattr(data_ways, "_looked_at", lambda source, *_: source)
    for way, is_mixed, says in (
        ("stream", True, is_said), ("stream", False, False), ("disk", True, False)
    ):  # fmt: skip
        caplog.clear()
        with caplog.at_level("INFO", "raygrad"):
            data_ways.study_data.__wrapped__(layout, DataConfig(), way, None, is_mixed)
        assert ("--train.shuffle-buffer 32768" in caplog.text) == says


@pytest.mark.parametrize("buffer", [0, 64])
def test_the_order_without_a_buffer_is_known_where_data_are_loaded(study, monkeypatch, buffer):
    seen = []
    monkeypatch.setattr(data_ways, "study_data", lambda *them, **_: seen.append(them[-1]))
    config = with_(study, train={"shuffle_buffer": buffer})
    training_data(config)
    trial_data(config)
    assert seen == [buffer == 0] * 2


def test_retrainings_may_have_their_images_elsewhere(study, tmp_path):
    config = with_(study, {"cache_dir": str(tmp_path)}, {"data": "stream"})
    assert trial_data(config) is training_data(config)
    apart = dataclasses.replace(config, sweep=SweepConfig(data="disk"))
    assert trial_data(apart).survey_url is None
    assert not is_streamed(apart, for_trials=True)


def test_on_a_cluster_the_disks_of_the_selected_nodes_are_judged(study, monkeypatch, caplog):
    """The driver stands on the head, which may have another disk and does no work."""
    asked = []

    def room(folder, most_bytes, nodes):
        asked.append(nodes)
        return Room(10_000 if nodes == ("raygrad=small",) else 20_000, "on w-3")

    monkeypatch.setattr(data_ways, "room_on_disks", room)
    monkeypatch.setattr(data_ways, "joins_cluster", lambda: True)
    nodes = {"train": {"nodes": ("raygrad=small",)}, "sweep": {"nodes": ("raygrad=large",)}}
    config = with_(study, {"memory_bytes": 10_000}, **nodes)
    with caplog.at_level("INFO", "raygrad"):
        assert is_streamed(config)
        assert not is_streamed(config, for_trials=True)
        assert trial_data(config).survey_url is None
        assert training_data(config).survey_url is not None
    assert asked == [(f"raygrad={name}",) for name in ("small", "large", "large", "small")]
    assert "and the disk has room on w-3" in caplog.text
    assert "has room for, 10.0 kB on w-3" in caplog.text


def test_photographs_are_not_cut_to_no_size(tmp_path):
    config = with_(indexed(tmp_path, None), train={"augment": "photo_crop"})
    with pytest.raises(ConfigError, match=r"photo_crop must know the size .* --data.image-size"):
        training_data(config)


@pytest.mark.parametrize(("loaders", "image_s"), [(None, 0.01), (4, 0.005), (0, 0.02)])
def test_a_plan_counts_the_slower_of_decoding_and_training(loaders, image_s):
    """2 CPUs a worker, 20 ms an image: by default as many processes decode."""
    rates = {"slow": Rates(0.1, 1.0, 0.004, 0.2, 5.0), "quick": Rates(0.1, 0.001, 0.02, 0.2, 5.0)}
    placed = SimpleNamespace(each={"CPU": 2.0})
    found = _with_decoding(lambda *_: rates, 0.02, loaders, ("slow", "quick"), placed)
    assert found["slow"] == dataclasses.replace(rates["slow"], eval_example_s=max(0.004, image_s))
    assert found["quick"].example_s == image_s
    assert found["quick"].eval_example_s == 0.02
