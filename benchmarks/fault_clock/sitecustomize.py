"""Sets the time of day of a worker off, while a file says by how many seconds.

The harness of fault schedules puts this folder on PYTHONPATH, and Python imports the module as it
starts. It is what a clock far off on a node looks like to what runs there: `time.time` is off, and
so is the moment that S3's library signs with; `time.monotonic` is not. The command's own process is
left alone, as it stands on another node; so are compiled code, which a clock that jumps would stop,
and the class `datetime`, which others are compiled against.
"""

import datetime
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

CLOCK = "RAYGRAD_FAULTS_CLOCK"
"""Names the file; while there is none the clock is right."""

_LOOK_S = 0.1
_SIGNS = "botocore.compat"
_time, _time_ns = time.time, time.time_ns
_seen: tuple[float, float] = (float("-inf"), 0.0)
"""When the file was last looked for, and what it said."""


def _offset_s() -> float:
    global _seen
    now_s = time.monotonic()
    if now_s - _seen[0] >= _LOOK_S:
        try:
            _seen = now_s, float(Path(os.environ[CLOCK]).read_text() or 0.0)
        except OSError:
            _seen = now_s, 0.0
    return _seen[1]


class _SetOff(importlib.abc.MetaPathFinder):
    """Finds the module that signs ask for the time, and sets that off once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _SIGNS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            module.get_current_datetime = _off(module.get_current_datetime)

        spec.loader.exec_module = exec_module
        return spec


def _off(read: Callable[..., datetime.datetime]) -> Callable[..., datetime.datetime]:
    def moment(*args: Any, **named: Any) -> datetime.datetime:
        return read(*args, **named) + datetime.timedelta(seconds=_offset_s())

    return moment


if CLOCK in os.environ and b"-m\0raygrad\0" not in Path("/proc/self/cmdline").read_bytes():
    time.time = lambda: _time() + _offset_s()
    time.time_ns = lambda: _time_ns() + int(_offset_s() * 1e9)
    sys.meta_path.insert(0, _SetOff())
