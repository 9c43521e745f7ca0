"""Streamed training equals training from memory, bit for bit, whatever ranks, shards and kills."""

import io
import socket

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from raygrad.config import TrainConfig
from raygrad.data import streaming
from raygrad.data.export import export_subset
from raygrad.data.index import Index, build_index, read_index, write_index
from raygrad.data.reading import EncodedExample
from raygrad.data.streaming import StreamedImages
from raygrad.data.transforms import CropTransform
from raygrad.errors import ConfigError, DataError
from raygrad.selection.keyed_random import key_hashes
from raygrad.training import ranks, streamed_examples
from raygrad.training.data_order import DataOrder
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.models import build_network
from raygrad.training.streamed_examples import PhotoCrops, StreamedExamples, rank_share
from raygrad.training.study_data import StudyData, StudySource, load_study_data
from tests.data.making import example, noise, put

NUM = 48
BROKEN = (3, 20, 44)
SIZE = 14


def photograph(number):
    """A photograph of a size of its own; a few are broken."""
    stream = io.BytesIO()
    Image.fromarray(noise(number, (20 + number % 5, 26 - number % 3))).save(stream, "PNG")
    return b"broken" if number in BROKEN else stream.getvalue()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The same photographs in memory and streamed, their index, and where they come from."""
    folder = tmp_path_factory.mktemp("photographs")
    urls = [
        put(
            folder,
            f"{name}.tar",
            [m for n in range(at, to) for m in example(f"k{n:02d}", n % 3, "png", photograph(n))],
        )
        for name, at, to in (("a", 0, 7), ("b", 7, 30), ("c", 30, 36), ("test", 36, NUM))
    ]
    index = build_index(urls[:3], urls[3:], val_fraction=0.2)
    write_index(str(folder / "data"), index)
    transform = CropTransform.to_size(SIZE)
    source = StudySource(
        str(folder / "data"), 3, 3, transform, "", survey_url=str(folder / "survey")
    )
    return load_study_data(index, 3, 3, transform), source.open(), index, source


def make_loop(data: StudyData, positions=None, loaders=0, **recipe) -> TrainingLoop:
    fields = {"epochs": 3, "batch_size": 5, "augment": "shift_flip", "lr_decay_epochs": ()}
    return TrainingLoop(
        build_network("mlp", data.spec, 0),
        TrainConfig(**{**fields, **recipe}),
        data.normalize,
        data.examples("train", positions, loaders),
        data.examples("val", loaders=loaders),
        order_seed=7,
    )


def outcome(loop):
    weights = torch.cat([p.detach().flatten() for p in loop._network.parameters()])
    history = [{**row, "epoch_time_s": 0} for row in loop.outcome.history]
    return weights.tolist(), history


def test_splits_are_those_of_memory(kept):
    memory, streamed, *_ = kept
    for split in ("train", "val", "test"):
        a, b = getattr(memory, split), getattr(streamed, split)
        assert (a.labels.tolist(), list(a.keys)) == (b.labels.tolist(), list(b.keys))
        assert a.rejects.equals(b.rejects)
        at = torch.arange(len(a.labels))
        assert torch.equal(streamed.examples(split).take(at), torch.from_numpy(a.images))
    assert (memory.spec, memory.normalize) == (streamed.spec, streamed.normalize)
    assert memory.num_examples == streamed.num_examples


@pytest.mark.parametrize(
    ("positions", "recipe"),
    [
        (None, {}),
        (None, {"shuffle_buffer": 1000}),
        (None, {"shuffle_buffer": 8, "augment": "mixup"}),
        (np.array([1, 4, 5, 11, 19, 20, 23]), {"augment": "random_resized_crop"}),
    ],
)
def test_streamed_training_is_that_from_memory_to_the_last_bit(kept, positions, recipe):
    """Also of a subset, through a buffer, and tested by the same code."""
    found = []
    for data in kept[:2]:
        loop = make_loop(data, positions, **recipe)
        loop.run()
        tested = evaluate(loop._network, data.normalize, data.examples("test", loaders=0))
        found.append((*outcome(loop), tested))
    assert found[0] == found[1]


def rank_main(rank, port, folder, source):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    index = read_index(source.index_url)
    memory = load_study_data(index, 3, 3, source.transform)
    found = []
    for data in (memory, source.open()):
        loop = make_loop(data, epochs=2, batch_size=7, shuffle_buffer=10)
        loop._ddp = DistributedDataParallel(loop._network)
        loop.run()
        found.append(outcome(loop))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_that_stream_are_two_ranks_in_memory(kept, tmp_path):
    """Real processes over gloo, to the last bit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    streamed_examples._context()  # what processes are forked from has the imports of training
    of = {"nprocs": 2, "start_method": "forkserver"}
    mp.start_processes(rank_main, (port, str(tmp_path), kept[3]), **of)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert first[0] == first[1] == second[0] == second[1]


def test_two_processes_beside_the_rank_change_no_bit(kept):
    memory, streamed, *_ = kept
    loops = [make_loop(memory, epochs=2), make_loop(streamed, loaders=2, epochs=2)]
    for loop in loops:
        loop.run()
    assert outcome(loops[0]) == outcome(loops[1])


@pytest.mark.parametrize("stop_at", [4, 7, 13])
def test_a_loop_killed_within_an_epoch_goes_on_to_the_same_weights(kept, stop_at):
    """The examples to come are a function of the step alone; images are cut anew all the same."""
    recipe = {"augment": "photo_crop", "shuffle_buffer": 9}
    saved = []
    whole = make_loop(kept[1], **recipe)
    whole.run(after_step=lambda one: one.outcome.step == stop_at and saved.append(one.state_dict()))
    resumed = make_loop(kept[1], **recipe)
    resumed.load_state_dict(saved[0])
    resumed.run()
    assert outcome(resumed) == outcome(whole)


def test_a_subset_read_by_ranges_is_trained_on_as_its_exported_copy_is(kept, tmp_path):
    _, streamed, index, _ = kept
    positions = np.array([0, 2, 3, 9, 17, 18, 21, 25])
    keys = [streamed.train.keys[at] for at in positions]
    copy = build_index(export_subset(index, keys, str(tmp_path)), [], val_fraction=0.0)
    images = StreamedImages(copy, copy.rows("train"), (3, SIZE, SIZE), CropTransform.to_size(SIZE))
    exported = StreamedExamples(images, torch.from_numpy(copy.rows("train")["label"].to_numpy()), 0)
    found = []
    for train in (streamed.examples("train", positions, 0), exported):
        loop = make_loop(streamed, positions, augment="photo_crop")
        loop = TrainingLoop(
            loop._network, loop._config, loop._normalize, train, loop._val, order_seed=7
        )
        loop.run()
        found.append(outcome(loop))
    assert found[0] == found[1]


def faked(counts):
    """An index of shards of so many examples, whose reading gives the key as the image."""
    shards = np.repeat(np.arange(len(counts)), counts)
    keys = [f"{number}" for number in range(len(shards))]
    return pa.table(
        {
            "key": keys,
            "key_hash": key_hashes(keys),
            "shard": pa.array([f"s{shard}" for shard in shards], pa.string()),
            "offset": np.arange(len(keys), dtype=np.int64),
            "size": np.full(len(keys), 100, np.int64),
            "label": np.zeros(len(keys), np.int64),
        }
    )


def fake_read(index, rows):
    for row in rows.to_pylist():
        yield EncodedExample(row["key"], row["shard"], row["key_hash"], 0, row["key"].encode())


@settings(max_examples=70, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=50).filter(sum),
    world_size=st.sampled_from([1, 2, 3]),
    batch_size=st.integers(1, 40),
    buffer=st.sampled_from([0, 1, 7, 64, 10**6]),
    group_bytes=st.sampled_from([1, 1500, 10**6]),
)
def test_every_example_is_seen_once_an_epoch_in_as_many_steps_on_every_rank(
    counts, world_size, batch_size, buffer, group_bytes
):
    """1 to 50 shards, 1 to 3 ranks: what counts of all ranks' images is the epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "read_rows", fake_read)
        patch.setattr(
            streaming, "decoded", lambda data, *_: np.array([int(data)], np.uint32).view(np.uint8)
        )
        patch.setattr(ranks, "world_size", lambda: world_size)
        rows = faked(counts)
        images = StreamedImages(Index(rows, rows, rows), rows, (4,), None)
        labels = torch.zeros(rows.num_rows, dtype=torch.int64)
        examples = StreamedExamples(images, labels, 0, group_bytes)
        seen, epoch, steps = [], 2, DataOrder(rows.num_rows, batch_size, 5).steps_per_epoch
        for rank in range(world_size):
            patch.setattr(ranks, "rank", lambda rank=rank: rank)
            order = DataOrder(rows.num_rows, batch_size, 5, buffer)
            source = examples.steps(order, None)
            for step in range(epoch * steps, (epoch + 1) * steps):
                everyone = order.batch(step)
                mine, num_mine = rank_share(everyone, rank, world_size)
                numbers = source.take(step).numpy().view(np.uint32).ravel()
                np.testing.assert_array_equal(numbers, everyone[mine])
                seen.extend(numbers[:num_mine].tolist())
        assert sorted(seen) == list(range(rows.num_rows))


def test_photographs_are_cut_as_seed_epoch_and_key_say(kept):
    """Whatever rank and batch; anew each epoch; the paper's cut is that of the transform."""
    _, streamed, *_ = kept
    transform, rows = streamed.train.images.transform, streamed.train.images.rows.to_pylist()
    examples = streamed.examples("train", loaders=0)
    order, crops = DataOrder(len(examples), 5, 7), PhotoCrops("photo_crop", 0.08, 7)
    for step in (1, order.steps_per_epoch + 2):
        at = order.batch(step)
        expected = [
            transform.train(
                photograph(int(rows[i]["key"][1:])),
                seed=7,
                epoch=order.epoch_of(step),
                key_hash=rows[i]["key_hash"],
            ).transpose(2, 0, 1)
            for i in at
        ]
        np.testing.assert_array_equal(examples.steps(order, crops).take(step), np.stack(expected))
    at = torch.arange(len(examples))
    for kind in ("photo_crop", "photo_resized_crop"):
        crops = PhotoCrops(kind, 0.08, 7)
        cuts = [examples.cut(at, crops, epoch).numpy() for epoch in (0, 0, 1)]
        np.testing.assert_array_equal(cuts[0], cuts[1])
        same = [np.array_equal(a, b) for a, b in zip(cuts[0], cuts[2], strict=True)]
        assert np.mean(same) < 0.2
        other = examples.cut(at, PhotoCrops(kind, 0.08, 8), 0).numpy()
        assert not np.array_equal(other, cuts[0])


def test_errors_of_the_processes_come_as_they_are(kept, tmp_path):
    index = build_index([put(tmp_path, "a.tar", example("k", image=b"no"))], [], val_fraction=0.0)
    images = StreamedImages(index, index.rows("train"), (3, 4, 4), None)
    for processes in (0, 1):
        examples = StreamedExamples(images, torch.zeros(1, dtype=torch.int64), processes)
        with pytest.raises(DataError, match=r"^images must stay as they were.*'k' in a"):
            list(examples.chunks([0, 0], 4))
        with pytest.raises(DataError, match=r"^images must stay as they were"):
            examples.steps(DataOrder(1, 1, 0), None).take(0)


def test_decoded_images_are_not_cut_out_of_photographs(kept):
    with pytest.raises(ConfigError, match=r"photo_crop .* decoded already.*--train.data stream"):
        make_loop(kept[0], augment="photo_crop")
