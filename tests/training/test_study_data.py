"""A data set too large for memory: mapped from a node's disk, and trained from as from memory."""

import dataclasses
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from raygrad.config import TrainConfig
from raygrad.data.index import build_index, write_index
from raygrad.errors import DataError
from raygrad.training import study_data
from raygrad.training.batches import Batches
from raygrad.training.data_order import DataOrder
from raygrad.training.examples import Examples
from raygrad.training.loop import TrainingLoop, evaluate
from raygrad.training.models import build_network
from raygrad.training.study_data import StudySource, decoded_bytes, load_study_data
from tests.data.making import example, examples, noise, put


@pytest.fixture
def kept(tmp_path):
    """The same forty images in memory, and where they come from."""
    urls = [
        put(
            tmp_path,
            f"{name}.tar",
            [m for n in range(first, last) for m in example(f"k{n:02d}", n % 4, "png", png_of(n))],
        )
        for name, first, last in (("a", 0, 15), ("b", 15, 30), ("test", 30, 40))
    ]
    index = build_index(urls[:2], urls[2:], val_fraction=0.3)
    write_index(str(tmp_path / "data"), index)
    source = StudySource(str(tmp_path / "data"), 4, 3, None, str(tmp_path / "cache"))
    return load_study_data(index, 4, 3), source, index


def png_of(number):
    """A picture of noise, 8 pixels square."""
    stream = io.BytesIO()
    Image.fromarray(noise(number, (8, 8))).save(stream, "PNG")
    return stream.getvalue()


def test_mapped_splits_statistics_and_counts_are_those_in_memory(kept):
    memory, source, index = kept
    mapped = source.open()
    for split in ("train", "val", "test"):
        a, b = getattr(memory, split), getattr(mapped, split)
        np.testing.assert_array_equal(a.images, b.images)
        assert (a.labels.tolist(), list(a.keys)) == (b.labels.tolist(), list(b.keys))
    assert mapped.normalize == memory.normalize
    assert mapped.spec == memory.spec
    assert source.num_examples == memory.num_examples == mapped.num_examples
    assert decoded_bytes(index, 3, None) == 40 * 3 * 8 * 8


def test_a_source_is_sent_as_where_it_comes_from(kept):
    _, source, _ = kept
    source.open()
    assert len(pickle.dumps(source)) < 1000


@pytest.mark.parametrize("positions", [None, np.array([1, 3, 4, 8, 9, 15])])
def test_training_on_mapped_images_is_bit_identical(kept, positions):
    """Also on a subset, which is not copied out of the file."""
    memory, source, _ = kept
    weights, tested = [], []
    for data in (memory, source.open()):
        network = build_network("mlp", data.spec, 0)
        examples = data.examples("train", positions)
        assert examples.is_mapped == (data is not memory)
        loop = TrainingLoop(
            network,
            TrainConfig(epochs=3, batch_size=4, augment="shift_flip", lr_decay_epochs=()),
            data.normalize,
            examples,
            data.examples("val"),
            order_seed=7,
        )
        loop.run()
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        tested.append(evaluate(network, data.normalize, data.examples("train", positions)))
    assert torch.equal(weights[0], weights[1])
    assert tested[0] == tested[1]


def test_mapped_batches_are_gathered_ahead_and_are_those_of_their_step(kept, monkeypatch):
    """In order, and after a jump, as from a saved state."""
    memory, source, _ = kept
    order = DataOrder(len(memory.train.labels), 4, 3)
    plain = Batches(memory.examples("train"), order, torch.device("cpu"))
    gathered = []
    gather = Batches._gather
    monkeypatch.setattr(Batches, "_gather", lambda *a: gathered.append(a[1]) or gather(*a))
    ahead = Batches(
        source.open().examples("train"), DataOrder(order._num_examples, 4, 3), torch.device("cpu")
    )
    for step in (0, 1, 2, 17, 18):
        found, expected = ahead.take(step), plain.take(step)
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.positions, expected.positions)
    ahead._ahead[1].result()
    # The plain one gathers each step itself; the other also the one that it guessed wrong.
    assert sorted(gathered) == sorted([0, 1, 2, 17, 18] * 2 + [3, 19])


def test_a_subset_is_copied_where_it_is_moved():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    subset = Examples(images, torch.tensor([7, 8]), True, torch.tensor([3, 1]))
    assert subset.take(torch.tensor([1, 0, 0])).flatten().tolist() == [1, 3, 3]
    assert subset.between(0, 9).flatten().tolist() == [3, 1]
    assert len(subset) == 2
    assert subset.near(torch.device("cpu")).images is images


@pytest.fixture
def undecodable(monkeypatch):
    """Decoding, which may take hours, fails the test."""

    def refuse(*arguments, **options):
        raise AssertionError("images were decoded before what the index tells was looked at")

    for name in ("load_arrays", "shared_arrays", "survey"):
        monkeypatch.setattr(study_data, name, refuse)


def test_every_way_says_what_the_index_lacks_before_it_decodes(tmp_path, undecodable):
    """An empty test split, in memory, on a disk and streamed."""
    urls = [put(tmp_path, "a.tar", examples([f"{n}" for n in range(12)]))]
    index = build_index(urls, [], val_fraction=0.3)
    write_index(str(tmp_path / "data"), index)
    disk = StudySource(str(tmp_path / "data"), 3, 3, None, str(tmp_path / "cache"))
    stream = dataclasses.replace(disk, survey_url=str(tmp_path / "survey"))
    for opened in (lambda: load_study_data(index, 3, 3), disk.open, stream.open):
        with pytest.raises(DataError, match="the test split must hold an example"):
            opened()


def test_data_that_were_scored_and_never_split_say_what_to_do_before_a_sweep(tmp_path):
    urls = [put(tmp_path, "a.tar", examples([f"{n}" for n in range(12)]))]
    index = build_index(urls, [], val_fraction=0.0)
    with pytest.raises(DataError, match=r"raygrad index DATA --test-tars TEST --run NEW"):
        load_study_data(index, 3, 3)


def test_labels_with_gaps_name_a_few_classes_and_the_remedy(tmp_path):
    members = [m for n in range(60) for m in example(f"{n}", (1, 5, 207)[n % 3])]
    tests = [m for n in range(6) for m in example(f"t{n}", 1)]
    urls = put(tmp_path, "a.tar", members), put(tmp_path, "t.tar", tests)
    index = build_index(urls[:1], urls[1:], val_fraction=0.2)
    with pytest.raises(DataError, match=r"--renumber") as caught:
        load_study_data(index, len(index.classes), 3)
    assert len(str(caught.value)) < 330
