"""Where memory does not suffice: the same steps and measurements in smaller parts."""

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from raygrad.errors import ResourceError
from raygrad.scoring import batch_bound
from raygrad.scoring.chunks import in_chunks
from raygrad.training import loop as loop_module
from raygrad.training import probe as probe_module
from raygrad.training.loop import evaluate
from raygrad.training.micro_batches import MicroBatches
from raygrad.training.probe import Bound, Probe
from tests.training.test_loop import examples, make_loop, weights

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Narrow(nn.Module):
    """A network for which memory holds a few examples at a time."""

    def __init__(self, inside, most, error=FULL):
        super().__init__()
        self.inside, self.most, self.error, self.sizes = inside, most, error, []

    def forward(self, images):
        found = self.inside(images)  # buffers and random numbers are used up by then
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return found


def narrowed(loop, most, error=FULL):
    """Lets a loop's network have little memory."""
    narrow = Narrow(loop._network, most, error)
    loop._network = loop._ddp = loop._micro_batches._network = narrow
    return narrow


@pytest.mark.parametrize("size", [1, 5, 16])
def test_micro_batches_add_up_to_the_step(size):
    """With mixup too, whose partners are of the whole batch."""
    recipe = {"epochs": 2, "augment": "mixup"}
    whole, parts = make_loop("mlp", **recipe), make_loop("mlp", **recipe, micro_batch=size)
    whole.run()
    parts.run()
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-5)
    history = [[row["train_loss"] for row in loop.outcome.history] for loop in (whole, parts)]
    assert history[1] == pytest.approx(history[0], rel=1e-4)


def test_a_step_without_memory_is_begun_again_as_if_nothing_had_been(caplog):
    """Dropout draws the same, statistics see no example twice: bits of a loop that knew before."""
    inside = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )
    found = {}
    for name, micro_batch, most in (("known", 6, 99), ("found", 0, 7)):
        loop = make_loop(epochs=1, micro_batch=micro_batch)
        loop._network = copy.deepcopy(inside)
        narrow = narrowed(loop, most)
        loop._optimizer = torch.optim.SGD(narrow.parameters(), lr=0.1)
        loop.run()
        found[name] = {key: value.clone() for key, value in narrow.inside.state_dict().items()}
        assert loop.micro_batch == 6, "half of the 12 or 13 of a batch"
    assert narrow.sizes[:3] == [12, 6, 6], "it was tried with more"
    assert all(torch.equal(found["found"][name], found["known"][name]) for name in found["known"])
    said = caplog.records[0].message
    assert "6 examples at a time from now on, and batch normalisation goes by those" in said


def little_memory(most, **recipe):
    """A loop with batch normalisation, whose network has little memory."""
    torch.manual_seed(0)
    loop = make_loop(epochs=2, **recipe)
    loop._network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )
    narrow = narrowed(loop, most)
    loop._optimizer = torch.optim.SGD(narrow.parameters(), lr=0.1)
    return loop


def test_a_training_goes_on_with_the_size_that_memory_asked_for():
    """Batch normalisation goes by it: also where the next process has memory for more."""
    undisturbed, killed, resumed = little_memory(7), little_memory(7), little_memory(99)
    undisturbed.run()

    class Killed(BaseException):
        pass

    def kill(loop):
        if loop.outcome.step == 2:
            saved.update(copy.deepcopy(loop.state_dict()))
            raise Killed

    saved = {}
    with pytest.raises(Killed):
        killed.run(after_step=kill)
    assert saved["micro_batches"] == [6]
    resumed.load_state_dict(saved)
    resumed.run()
    assert resumed.micro_batch == 6
    for name, value in undisturbed._network.inside.state_dict().items():
        assert torch.equal(resumed._network.inside.state_dict()[name], value)


def test_a_size_that_nobody_was_forced_to_is_not_kept_from_a_flag():
    """Nor is a state refused that was saved before sizes were."""
    saved = little_memory(99, micro_batch=8).state_dict()
    assert saved["micro_batches"] == [0]
    for state in (saved, {k: v for k, v in saved.items() if k != "micro_batches"}):
        loop = little_memory(99, micro_batch=4)
        loop.load_state_dict(state)
        assert loop.micro_batch == 4


@pytest.mark.parametrize(
    ("given", "found", "rank", "world_size", "goes_on"),
    [
        (0, [8, 4], 1, 2, 4),
        (0, [0, 4], 0, 2, 0),
        (0, [0, 4, 16], 0, 2, 4),
        (2, [8], 0, 1, 2),
        (16, [8], 0, 1, 8),
        (16, [], 0, 1, 16),
    ],
)
def test_ranks_go_on_with_their_own_sizes_and_other_ranks_with_the_smallest(
    given, found, rank, world_size, goes_on
):
    parts = MicroBatches(nn.Linear(1, 1), given)
    parts.restore(found, rank, world_size)
    assert parts.size == goes_on


def test_memory_for_no_example_is_an_error_with_a_remedy():
    loop = make_loop()
    narrowed(loop, 0)
    with pytest.raises(ResourceError, match=r"passes of 1 examples, got: CUDA out .* smaller"):
        loop.run()


def test_an_error_that_is_none_of_memory_is_not_tried_again():
    loop = make_loop()
    narrow = narrowed(loop, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        loop.run()
    assert len(narrow.sizes) == 1


def test_ranks_begin_no_step_again_by_themselves():
    """The others would wait for ever; the remedy is a flag."""
    loop = make_loop()
    narrow = narrowed(loop, 6)
    loop._ddp = Narrow(narrow, 6)
    with pytest.raises(ResourceError, match=r"memory must hold .* Give micro_batch="):
        loop.run()


def test_evaluation_in_chunks_is_evaluation(monkeypatch):
    loop, split = make_loop(), examples(70, seed=3)
    whole = evaluate(loop._network.eval(), loop._normalize, split)
    narrow = Narrow(loop._network, 9)
    monkeypatch.setattr(loop_module, "EVAL_BATCH_SIZE", 32)
    parts = evaluate(narrow, loop._normalize, split)
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert narrow.sizes == [32, 16, *[8] * 8, 6], "the size that is enough is kept"


def test_the_bound_and_the_probe_in_chunks_are_themselves(monkeypatch):
    """By what memory is said to hold: 4 examples and not the batch of 16."""
    loop = make_loop(bound_epochs=(1,), bound_batches=3)
    network = loop._network.eval()
    tables = []
    for most in (99, 4):
        monkeypatch.setattr(probe_module, "batch_size_for", lambda *_, most=most: most)
        probe = Probe(loop._train, loop._normalize, size=11, seed=3)
        bound = Bound(loop._train, loop._normalize, loop._config, seed=3)
        for watching in (probe, bound):
            watching.after_epoch(1, network)
        keys = [f"k{at}" for at in range(50)]
        tables.append((probe.table(keys), bound.table()))
    for whole, parts in zip(*tables, strict=True):
        for name in whole.column_names[2:]:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made meanwhile have held at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage):
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key, size):
        self._seen.discard(key)
        self.now -= size


def test_the_bound_holds_a_chunks_activations_and_one_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    images, labels = torch.randn(64, 3, 16, 16), torch.arange(64) % 4
    found, peaks = [], []
    for chunk_size in (0, 8):
        with LiveBytes() as live:
            found.append(batch_bound(model, images, labels, chunk_size=chunk_size))
        peaks.append(live.peak)
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert peaks[1] < 0.3 * peaks[0]


def test_chunks_are_halved_from_where_memory_does_not_suffice(caplog):
    done = []

    def work(rows):
        if rows.stop - rows.start > 3:
            raise FULL
        done.append((rows.start, rows.stop))
        return rows.start

    assert in_chunks(work, 10, 8, "the work") == ([0, 2, 4, 6, 8], 2)
    assert done == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    assert "the work: chunks of 2 from now on: CUDA out of memory" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        in_chunks(lambda rows: (_ for _ in ()).throw(FULL), 3, 1, "the work")
