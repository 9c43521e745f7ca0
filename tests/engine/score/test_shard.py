"""Scoring a shard in one process: every example once, decoded ahead, whatever the batches are."""

import dataclasses
import json
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raygrad.data.reading import EncodedExample
from raygrad.engine.score.actor import OutputError, ShardWork
from raygrad.engine.score.lane import BATCHES_AHEAD, decoded_batches
from raygrad.engine.score.networks import NetworkScorer
from raygrad.errors import ConfigError, DataError
from raygrad.runs import score_table
from raygrad.scoring import memory
from raygrad.scoring.memory import (
    available_bytes,
    batch_size_within,
    bytes_each,
    measured_batch_size,
)
from raygrad.scoring.verdicts import Verdicts
from raygrad.storage import files, s3_client
from raygrad.training.models import build_network
from raygrad.training.preprocess import Normalize
from tests.engine.score.scoring_cases import (
    COLUMNS,
    SPEC,
    assert_same_scores,
    bare_scores,
    by_key,
    make_shards,
    make_task,
    net,
)


def quiet(count, rejected=0):
    """Progress that nobody watches."""


def scored(folder, task, shards=("own-000", "own-001", "own-002", "own-003")):
    """Scores shards and returns their rows by key."""
    work = ShardWork(task)
    for shard in shards:
        status = work.score(shard, quiet)
        assert status.kind == "done"
    score_table.write_manifest(task.out_url, shards, task.provenance, 0.0)
    return by_key(folder)


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_the_scores_are_those_of_single_examples_whatever_the_batch(tmp_path, batch_size):
    urls = make_shards(tmp_path)
    task = make_task(tmp_path, urls, batch_size=batch_size)
    assert_same_scores(scored(tmp_path, task), bare_scores(task))


def test_a_shard_on_s3_is_three_requests_of_its_own(tmp_path, s3_url):
    """Whether it has its part, its bytes, and its part; small shards are made of little else."""
    for url in make_shards(tmp_path, 3):
        files.write_bytes(f"{s3_url}/{Path(url).name}", Path(url).read_bytes())
    urls = [f"{s3_url}/own-{at:03d}.tar" for at in range(3)]
    work = ShardWork(make_task(tmp_path, urls, out_url=f"{s3_url}/scores"))
    work.score("own-000", quiet)
    asked: list[str] = []

    def note(model, **_):
        asked.append(model.name)

    events = s3_client.client().meta.events
    events.register("before-call.s3", note)
    try:
        assert work.score("own-001", quiet).kind == "done"
        assert sorted(asked) == ["GetObject", "HeadObject", "PutObject"]
        asked.clear()
        assert work.score("own-001", quiet).kind == "found"
        assert sorted(asked) == ["GetObject", "HeadObject"], "its footer alone"
    finally:
        events.unregister("before-call.s3", note)


def test_the_same_batches_give_the_same_bits(tmp_path):
    urls = make_shards(tmp_path)
    first = scored(tmp_path, make_task(tmp_path, urls))
    task = make_task(tmp_path, urls, out_url=str(tmp_path / "again" / "scores"), decode_threads=3)
    work = ShardWork(task)
    for shard in ("own-003", "own-001", "own-000", "own-002"):
        work.score(shard, quiet)
    score_table.write_manifest(
        task.out_url, ["own-000", "own-001", "own-002", "own-003"], task.provenance, 0
    )
    assert by_key(tmp_path / "again") == first


def test_used_and_rejected_are_the_index_and_rejects_have_reasons(tmp_path):
    broken = ("s0-003", "s0-007")
    task = make_task(tmp_path, make_shards(tmp_path, 1, broken=broken))
    status = ShardWork(task).score("own-000", quiet)
    facts = score_table.part_facts(task.out_url, "own-000", task.provenance)
    assert status.used == facts.num_used == 10
    assert sorted(row["key"] for row in facts.rejects) == list(broken)
    assert all("an image must be a whole" in row["reason"] for row in facts.rejects)


def test_a_shard_of_rejects_alone_has_an_empty_part_of_the_same_columns(tmp_path):
    broken = [f"s0-{at:03d}" for at in range(12)]
    task = make_task(tmp_path, make_shards(tmp_path, 2, broken=broken))
    work = ShardWork(task)
    assert [work.score(shard, quiet).used for shard in ("own-000", "own-001")] == [0, 12]
    schemas = [
        pq.read_schema(score_table.part_url(task.out_url, shard)).remove_metadata()
        for shard in ("own-000", "own-001")
    ]
    assert schemas[0].equals(schemas[1])


def test_a_part_that_is_there_is_found_and_not_made_again(tmp_path):
    task = make_task(tmp_path, make_shards(tmp_path, 1))
    work = ShardWork(task)
    work.score("own-000", quiet)
    before = (tmp_path / "scores" / "part-own-000.parquet").stat().st_mtime_ns
    assert work.score("own-000", quiet).kind == "found"
    assert (tmp_path / "scores" / "part-own-000.parquet").stat().st_mtime_ns == before
    other = dataclasses.replace(task, provenance={"network": "another"})
    with pytest.raises(ConfigError, match="one provenance"):
        ShardWork(other).score("own-000", quiet)


def test_several_checkpoints_are_a_column_each_and_their_mean(tmp_path):
    urls = make_shards(tmp_path, 1)
    columns = ("grand", "el2n")
    many = make_task(tmp_path, urls, checkpoints=(None, None, None), columns=columns)
    ShardWork(many).score("own-000", quiet)
    table = pq.read_table(score_table.part_url(many.out_url, "own-000")).to_pydict()
    for seed, source in enumerate(many.networks):
        one = dataclasses.replace(
            many,
            networks=(source,),
            digests=many.digests[seed : seed + 1],
            columns=("grad_l2_all", "el2n"),
            out_url=str(tmp_path / f"one-{seed}"),
        )
        ShardWork(one).score("own-000", quiet)
        alone = pq.read_table(score_table.part_url(one.out_url, "own-000")).to_pydict()
        assert table[f"grand@{seed}"] == alone["grad_l2_all"]
        for name in ("el2n", "prediction", "correct"):
            assert table[f"{name}@{seed}"] == alone[name]
    for name in columns:
        mean = np.mean([table[f"{name}@{seed}"] for seed in range(3)], axis=0)
        np.testing.assert_allclose(table[name], mean, rtol=1e-6)
    assert table["correct"] == [
        p == label for p, label in zip(table["prediction"], table["label"], strict=True)
    ]


def test_features_are_what_enters_the_last_layer(tmp_path):
    task = make_task(tmp_path, make_shards(tmp_path, 1), features=True)
    ShardWork(task).score("own-000", quiet)
    side = pq.read_table(score_table.features_url(task.out_url, "own-000"))
    part = pq.read_table(score_table.part_url(task.out_url, "own-000"))
    assert side["key"].to_pylist() == part["key"].to_pylist()
    features = np.stack(side["features"].to_pylist()).astype(np.float32)
    assert features.shape == (12, 4 * 8 * 8)
    last = task.networks[0].build()[3]
    logits = last(torch.from_numpy(features))
    assert logits.argmax(1).tolist() == part["prediction"].to_pylist()


def test_weights_that_changed_since_the_driver_saw_them_are_refused(tmp_path):
    task = make_task(tmp_path, make_shards(tmp_path, 1), digests=("0" * 32,))
    with pytest.raises(ConfigError, match="checkpoint must not change"):
        ShardWork(task)


def test_no_room_for_a_part_is_an_error_of_its_own(tmp_path, monkeypatch):
    task = make_task(tmp_path, make_shards(tmp_path, 1))

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_table, "write_table", full)
    with pytest.raises(OutputError, match="No space left on device"):
        ShardWork(task).score("own-000", quiet)


def test_a_changed_shard_is_refused(tmp_path):
    urls = make_shards(tmp_path, 1)
    task = make_task(tmp_path, urls)
    with open(urls[0], "ab") as stream:
        stream.write(bytes(512))
    with pytest.raises(DataError, match="must be as it was when it was indexed"):
        ShardWork(task).score("own-000", quiet)


def examples(count):
    return [EncodedExample(f"k{at}", "s", at, at % 3, b"") for at in range(count)]


def test_decoding_is_ahead_by_a_bounded_number_of_batches():
    decoded = 0

    def decode(example):
        nonlocal decoded
        decoded += 1
        return np.zeros((2, 2, 3), np.uint8)

    batches = decoded_batches(examples(1000), decode, 10, 1)
    next(batches)
    time.sleep(0.3)
    # One given out, those that wait, and one in the hands of the thread.
    assert 10 * (BATCHES_AHEAD + 1) <= decoded <= 10 * (BATCHES_AHEAD + 2)
    batches.close()
    assert "raygrad-decode" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_batches_are_full_in_order_and_errors_come_through(num_threads):
    def decode(example):
        if example.key_hash % 4 == 1:
            raise DataError("an image must be whole, got half of one.")
        return np.full((2, 2, 3), example.key_hash, np.uint8)

    batches = list(decoded_batches(examples(40), decode, 8, num_threads))
    assert [len(batch.keys) for batch in batches if batch.keys] == [8, 8, 8, 6]
    usable = [at for at in range(40) if at % 4 != 1]
    assert [int(v) for batch in batches for v in batch.images[:, 0, 0, 0]] == usable
    assert [row["key"] for b in batches for row in b.rejects] == [
        f"k{at}" for at in range(40) if at % 4 == 1
    ]

    def sizes(example):
        return np.zeros((2 + example.key_hash // 5, 2, 3), np.uint8)

    with pytest.raises(DataError, match="--image-size"):
        list(decoded_batches(examples(40), sizes, 8, num_threads))


def scorer(network, **options):
    return NetworkScorer([network], Normalize((0.0,) * 3, (1.0,) * 3), COLUMNS, **options)


@pytest.mark.parametrize(
    "said",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["torch", "cublas", "cudnn", "convolution", "cpu"],
)
def test_out_of_memory_halves_the_batch_and_goes_on(said, caplog):
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 3
    network = net(SPEC)
    whole = scorer(network, batch_size=4).score(images, labels)
    tight = scorer(network, batch_size=32)
    real = tight._pass

    def limited(pixels, targets, later):
        if len(targets) > 6:
            raise said
        return real(pixels, targets, later)

    tight._pass = limited
    found = tight.score(images, labels)
    assert tight.batch_size == 5
    assert "batches of 5 from now on" in caplog.text
    for name, values in whole.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=1e-7)
    tight._pass = lambda *_: (_ for _ in ()).throw(said)
    with pytest.raises(type(said)):
        tight.score(images[:1], labels[:1])


def test_another_error_is_no_lack_of_memory():
    images, labels = np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64)
    broken = scorer(net(SPEC), batch_size=4)
    broken._pass = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        broken.score(images, labels)
    assert broken.batch_size == 4


def test_columns_come_from_the_device_in_one_transfer_a_type(monkeypatch):
    """Not one for each column and batch: every one waits for all that was asked of the device."""
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
    labels, network = np.arange(9) % 3, scorer(net(SPEC), batch_size=4, features=True)
    later = Verdicts()
    parts = [
        network.scored(
            torch.from_numpy(images[at : at + 3]), torch.from_numpy(labels[at : at + 3]), later
        )
        for at in (0, 3, 6)
    ]
    transfers, real = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda own: transfers.append(own.dtype) or real(own))
    found = network.collected(parts, later)
    assert sorted(map(str, transfers)) == [
        "torch.bool",
        "torch.float16",
        "torch.float32",
        "torch.int64",
    ]
    whole = network.score(images, labels)
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(
            found[name], values, rtol=2e-5, atol=1e-3 if name == "features" else 1e-7
        )


def test_bf16_keeps_the_order_of_scores():
    """Rounded to 8 bits, but the order that a selection is made from stays."""
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(24) % 10
    network = build_network(
        "resnet18", dataclasses.replace(SPEC, height=16, width=16, num_classes=10), 0
    )
    exact = scorer(network).score(images, labels)
    rough = scorer(network, numerics="bf16").score(images, labels)
    for name in COLUMNS:
        ranks = [np.argsort(np.argsort(s[name])) for s in (exact, rough)]
        assert np.corrcoef(*ranks)[0, 1] > 0.9, name
        assert not np.array_equal(exact[name], rough[name])


def test_an_actor_computes_by_its_numerics_and_its_parts_say_so(tmp_path, monkeypatch):
    """Set anew for every batch, whatever the process or the building of a network has set."""
    seen = set()
    linear = torch.nn.functional.linear

    def watched(*args):
        conv = torch.backends.cudnn.conv.fp32_precision
        seen.add((conv, torch.backends.cudnn.deterministic))
        return linear(*args)

    task = make_task(tmp_path, make_shards(tmp_path, 1), numerics="tf32", columns=("loss",))
    before = torch.backends.cudnn.conv.fp32_precision
    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    ShardWork(task).score("own-000", quiet)
    ShardWork(dataclasses.replace(task, numerics="exact", out_url=str(tmp_path / "b"))).score(
        "own-000", quiet
    )
    assert seen == {("tf32", False), ("ieee", True)}
    assert torch.backends.cudnn.conv.fp32_precision == before
    metadata = pq.read_metadata(score_table.part_url(task.out_url, "own-000")).metadata
    said = json.loads(metadata[b"raygrad.computed_by"])
    assert (said["numerics"], said["torch"]) == ("tf32", torch.__version__)
    facts = score_table.part_facts(task.out_url, "own-000", task.provenance)
    assert facts.device == said["device"] != ""


def test_on_a_gpu_the_batch_size_follows_from_what_passes_take(monkeypatch):
    """Of the first real images; what they take in any case is told from what each takes."""
    counts = []

    def peak(work):
        work()
        return 10_000 + 100 * counts[-1]

    assert measured_batch_size(counts.append, 10_000 + 100 * 70, 16, peak) == 64
    assert counts == [4, 4, 16]
    assert measured_batch_size(counts.append, 9_000, 16, peak) == 1
    seen = []
    monkeypatch.setattr(memory, "peak_bytes", lambda work: (work(), seen.append(1), len(seen))[2])
    measured = scorer(net(SPEC), batch_size=2, budget_bytes=40)
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    found = measured.score(images, np.arange(20) % 3)
    assert measured.batch_size == 32, "a byte for 12 images and none in any case"
    whole = scorer(net(SPEC), batch_size=20).score(images, np.arange(20) % 3)
    for name, values in whole.items():
        assert found[name].shape == values.shape
    measured.score(images, np.arange(20) % 3)
    assert len(seen) == 2, "once"


def test_the_batch_size_follows_from_bytes():
    each = bytes_each(net(SPEC), (3, 8, 8))
    outputs = 2 * 4 * 8 * 8 + 4 * 8 * 8 + 3  # conv, relu, flatten, linear
    assert each == 3 * 4 * (3 * 8 * 8 + outputs)
    assert batch_size_within(100 * each, each) == 64
    assert batch_size_within(1, each) == 1
    assert batch_size_within(10**15, each) == 256
    assert 0 < available_bytes() < 10**14
