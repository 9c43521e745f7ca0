"""Schedules come from their seed alone and shrink to what matters; the proxy misbehaves as told."""

import hashlib
import http.client
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.fault_kinds import CLOCK, KINDS, MAX_FAULTS, OFF_S, Fault, do, draw, shrunk
from benchmarks.fault_proxy import Proxy

ROOT = Path(__file__).parents[2]

BODY = bytes(40_000)


@pytest.mark.parametrize("stage", KINDS)
def test_a_schedule_is_that_of_its_seed_and_number(stage):
    schedules = [draw(stage, 0, number) for number in range(300)]
    assert schedules == [draw(stage, 0, number) for number in range(300)]
    assert schedules != [draw(stage, 1, number) for number in range(300)]
    assert {fault.kind for faults in schedules for fault in faults} == set(KINDS[stage])
    for faults in schedules:
        assert 1 <= len(faults) <= MAX_FAULTS
        assert all(0 <= one.after < 1 for one in faults)
        assert faults == sorted(faults, key=lambda one: one.after)


@pytest.mark.parametrize(
    ("stage", "more", "digest"),
    [
        ("score", False, "3ce3767e0dac51ee"),
        ("score", True, "def41790c9af0cf6"),
        ("train", False, "f4d973a7258485c3"),
        ("train", True, "8507e9455b535abd"),
        ("sweep", False, "107fc8fd28f7ea07"),
        ("sweep", True, "ff1dd508d726259d"),
        ("study", False, "c67f228a4f5d8e1d"),
        ("study", True, "ef64b8aab0b8c397"),
    ],
)
def test_the_schedules_of_records_stay_what_they_were(stage, more, digest):
    """A number and a seed of a row are what its schedule is known by."""
    drawn = [
        [(one.kind, one.after, one.for_s) for one in draw(stage, seed, number, more=more)]
        for seed in (0, 1, 7)
        for number in range(300)
    ]
    assert hashlib.blake2b(repr(drawn).encode(), digest_size=8).hexdigest() == digest


def test_a_schedule_with_a_clock_has_one_that_is_off_ahead_or_behind():
    schedules = [draw("score", 0, number, clock=True) for number in range(100)]
    assert all(CLOCK in {one.kind for one in faults} for faults in schedules)
    told = []

    class Clocked:
        set_clock = staticmethod(told.append)

    for faults in schedules:
        for fault in faults:
            if fault.kind == CLOCK:
                do(fault, Clocked(), lambda after_s, call: call())
    assert set(told) == {OFF_S, -OFF_S, 0.0}
    assert told[1::2] == [0.0] * (len(told) // 2), "each is set right again"


READ_CLOCK = """
import datetime, os, pathlib, time
import botocore.auth, pandas  # pandas is compiled against the class datetime
file = pathlib.Path(os.environ["RAYGRAD_FAULTS_CLOCK"])
def off():
    file.with_suffix(".now").write_text("")  # its time is the system's, which is right
    now = file.with_suffix(".now").stat().st_mtime
    signed = botocore.auth.get_current_datetime(remove_tzinfo=False).timestamp()
    bare = botocore.auth.get_current_datetime().replace(tzinfo=datetime.timezone.utc).timestamp()
    return {round((one - now) / 60) for one in (time.time(), time.time_ns() / 1e9, signed, bare)}
told = [off()]
begun_s = time.monotonic()
for offset_s in (7200.0, -7200.0, None):
    file.write_text(str(offset_s)) if offset_s else file.unlink()
    time.sleep(0.2)
    told.append(off())
assert 0.5 < time.monotonic() - begun_s < 60
print(told)
"""


def test_the_clock_of_a_worker_is_off_as_long_as_it_is_told_and_no_other_is(tmp_path):
    """`time.time` and the signature of a request; not the monotonic clock."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "benchmarks" / "fault_clock"),
        "RAYGRAD_FAULTS_CLOCK": str(tmp_path / "clock"),
    }

    def said(*command):
        return subprocess.run(
            [sys.executable, *command], env=environment, cwd=tmp_path, text=True, timeout=60,
            capture_output=True, check=True,
        ).stdout  # fmt: skip

    (tmp_path / "worker.py").write_text(READ_CLOCK)
    assert said("worker.py") == "[{0}, {120}, {-120}, {0}]\n"
    (tmp_path / "raygrad.py").write_text("import time; print(time.time)")
    assert "built-in" in said("-m", "raygrad"), "the command itself"
    assert "built-in" not in said("raygrad.py")


def test_a_schedule_shrinks_to_the_faults_that_it_takes():
    faults = [Fault(kind, at / 10, 1.0) for at, kind in enumerate("abcde")]

    def fails(some):
        return {"b", "d"} <= {one.kind for one in some}

    assert [one.kind for one in shrunk(faults, fails)] == ["b", "d"]


@pytest.fixture
def proxy():
    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = Proxy(server.server_port)
    yield made
    made.stop()
    server.shutdown()
    server.server_close()


def get(proxy):
    """Returns the status and the bytes of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request("GET", "/x")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_proxy_that_is_up_passes_all_on(proxy):
    assert get(proxy) == (200, BODY)


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        ("refuse", 403, b"ExpiredToken"),
        ("skew", 403, b"RequestTimeTooSkewed"),
        ("busy", 503, b"SlowDown"),
    ],
)
def test_a_proxy_refuses_in_the_servers_words_and_is_up_again(proxy, mode, status, code):
    proxy.set_mode(mode)
    found = get(proxy)
    assert found[0] == status
    assert code in found[1]
    proxy.set_mode("up")
    assert get(proxy) == (200, BODY)


@pytest.mark.parametrize("mode", ["down", "cut"])
def test_a_proxy_gives_no_whole_answer(proxy, mode):
    proxy.set_mode(mode)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        get(proxy)
    proxy.set_mode("up")
    assert get(proxy) == (200, BODY)


def test_a_slow_proxy_gives_all_in_the_end(proxy):
    proxy.set_mode("slow")
    begun_s = time.monotonic()
    assert get(proxy) == (200, BODY)
    assert time.monotonic() - begun_s > 0.3
