"""Files of weights: what is damaged or something else is said in a line."""

import pytest
import torch

from raygrad.errors import ConfigError
from raygrad.training.checkpoints import from_bytes, load_checkpoint, to_bytes

WHOLE = to_bytes({"weights": {"w": torch.arange(99.0)}, "format": 2})


def test_what_was_written_is_read():
    values = from_bytes(WHOLE)
    assert torch.equal(values["weights"]["w"], torch.arange(99.0))
    assert values["format"] == 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("of", [WHOLE, b"hello world" * 50, b"<html>" * 9, bytes(range(256))])
def test_a_checkpoint_that_is_cut_or_none_is_named(tmp_path, share, of):
    path = tmp_path / "best.pt"
    path.write_bytes(of[: int(share * len(of))])
    with pytest.raises(
        ConfigError, match=r"^checkpoint must be whole, got .+best.pt'\. Train again"
    ):
        load_checkpoint(str(path))


def test_bytes_of_any_kind_end_in_one_error_of_one_line():
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        size = int(torch.randint(1, 400, (), generator=generator))
        data = bytes(torch.randint(0, 256, (size,), generator=generator).tolist())
        for one in (data, b"\x80\x02" + data):
            with pytest.raises(ValueError, match=r"^.+$"):
                from_bytes(one)


def test_a_machine_without_memory_is_no_fault_of_the_file(monkeypatch):
    """A whole saved state would else be begun anew from, and written over."""

    def load(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="alloc_cpu"):
        from_bytes(b"")
