"""Schedules come from their seed alone and shrink to what matters; the proxy misbehaves as told."""

import http.client
import http.server
import threading
import time

import pytest

from benchmarks.fault_kinds import KINDS, MAX_FAULTS, Fault, draw, shrunk
from benchmarks.fault_proxy import Proxy

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
