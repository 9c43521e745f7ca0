"""Sets the time of day of a worker off, while a file says by how many seconds.

The harness of fault schedules puts this folder on PYTHONPATH, and Python imports the module as it
starts. It is what a clock far off on a node looks like to what runs there: `time.time` and
`datetime.now` are off, `time.monotonic` is not. The command's own process is left alone, as it
stands on another node; so is Ray's compiled code, which a clock that jumps would stop.
"""

import copyreg
import datetime
import os
import time
from pathlib import Path
from typing import Any

CLOCK = "RAYGRAD_FAULTS_CLOCK"
"""Names the file; while there is none the clock is right."""

_LOOK_S = 0.1
_time, _time_ns, _right = time.time, time.time_ns, datetime.datetime
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


class _AnyMoment(type):
    """Takes every moment for one of the class, as which the right one is known no more."""

    def __instancecheck__(cls, instance: object) -> bool:
        return (
            isinstance(instance, _right) if cls is _Off else type.__instancecheck__(cls, instance)
        )


class _Off(_right, metaclass=_AnyMoment):
    """A `datetime` whose clock is off; what it makes are right ones."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        return _right.__new__(_right if cls is _Off else cls, *args, **named)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _right.now(tz) + datetime.timedelta(seconds=_offset_s())

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


def _set_off() -> None:
    _Off.__name__ = _Off.__qualname__ = "datetime"
    _Off.__module__ = "datetime"
    time.time = lambda: _time() + _offset_s()
    time.time_ns = lambda: _time_ns() + int(_offset_s() * 1e9)
    datetime.datetime = _Off
    # A right one is pickled by the name that is now the other's.
    copyreg.pickle(_right, lambda moment: (_Off, moment.__reduce__()[1]))


if CLOCK in os.environ and b"-m\0raygrad\0" not in Path("/proc/self/cmdline").read_bytes():
    _set_off()
