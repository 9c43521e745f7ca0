"""Copies to a GPU go beside its work: pinned, on another stream, waited for on the device alone."""

from types import SimpleNamespace

import numpy as np
import torch

from raygrad.data.reading import EncodedExample
from raygrad.engine.score.lane import decoded_batches
from raygrad.engine.score.uploading import Uploader

IMAGES, LABELS = np.zeros((2, 3, 4, 4), np.uint8), np.arange(2)


def test_on_a_cpu_batches_are_where_they_are():
    uploader = Uploader("cpu")
    images, labels = uploader.receive(uploader.send(IMAGES, LABELS))
    assert images.data_ptr() == IMAGES.ctypes.data
    assert labels.tolist() == [0, 1]


def test_a_batch_is_copied_on_a_stream_of_its_own_and_waited_for_on_the_device(monkeypatch):
    """With a driver that only writes down what it is asked, in its order."""
    asked = []

    class Stream:
        def __init__(self, device):
            asked.append("new stream")

        def __enter__(self):
            asked.append("on it")

        def __exit__(self, *_):
            asked.append("off it")

        def wait_event(self, event):
            asked.append("wait on the device")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(device))
    event = SimpleNamespace(record=lambda stream: asked.append("event"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda own: asked.append("pin") or own)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda own, *_, non_blocking: asked.append(f"copy {non_blocking}") or own,
    )
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda own, stream: asked.append("record"))
    uploader = Uploader("cuda")
    sent = uploader.send(IMAGES, LABELS)
    copies = ["pin", "copy True"]
    assert asked == ["new stream", "on it", *copies, *copies, "event", "off it"]
    asked.clear()
    uploader.receive(sent)
    assert asked == ["new stream", "wait on the device", "record", "record"]


def test_batches_are_sent_by_the_thread_that_decodes_them():
    """So that the next one is there before this one is done with."""
    sent = []

    class Watched:
        def send(self, images, labels):
            sent.append(labels.tolist())
            return len(sent)

    examples = [EncodedExample(str(at), "s", at, at, b"") for at in range(7)]
    pixels = np.zeros((4, 4, 3), np.uint8)
    batches = decoded_batches(examples, lambda _: pixels, 3, 1, Watched())
    first = next(batches)
    assert (first.uploaded, first.keys) == (1, ["0", "1", "2"])
    assert [batch.uploaded for batch in batches] == [2, 3]
    assert sent == [[0, 1, 2], [3, 4, 5], [6]]
