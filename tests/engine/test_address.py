"""An address at which no Ray answers is refused in one line, within seconds."""

import socket
import threading
import time

import pytest
import ray

from raygrad.cli import command
from raygrad.engine import address
from raygrad.engine.address import check_answers
from raygrad.engine.session import ensure_ray
from raygrad.errors import ConfigError, ResourceError


@pytest.fixture
def server():
    """Returns a function that listens and gives every caller an answer; None is silence."""
    listeners, ended = [], threading.Event()

    def listen(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            while not ended.is_set():
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                if answer is None:
                    ended.wait(10)
                else:
                    caller.recv(64)
                    caller.sendall(answer)
                caller.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield listen
    ended.set()
    for listener in listeners:
        listener.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def refused(at, monkeypatch):
    """The one line that a stage gives, and the seconds that it took."""
    monkeypatch.setenv("RAY_ADDRESS", at)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    begun_s = time.monotonic()
    with pytest.raises((ResourceError, ConfigError)) as error:
        ensure_ray()
    return str(error.value), time.monotonic() - begun_s


def test_nobody_there(monkeypatch):
    said, took_s = refused(f"127.0.0.1:{free_port()}", monkeypatch)
    assert "nobody" in said
    assert "unset it to start a Ray on this machine" in said
    assert took_s < 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"SSH-2.0-x\r\n"])
def test_somebody_else_there(answer, server, monkeypatch):
    said, took_s = refused(server(answer), monkeypatch)
    assert "somebody who is no Ray" in said or "nobody" in said
    assert took_s < 2


def test_a_host_that_does_not_say_a_word(server, monkeypatch):
    monkeypatch.setattr(address, "TIMEOUT_S", 0.5)
    said, took_s = refused(server(None), monkeypatch)
    assert "timed out" in said
    assert took_s < 2


@pytest.mark.parametrize("at", ["head", "head:", ":6379", "http://head", "127.0.0.1:port"])
def test_what_is_no_address_is_wrong_usage(at, monkeypatch):
    assert "must be HOST:PORT" in refused(at, monkeypatch)[0]


def test_a_ray_that_lives_answers(ray_session):
    check_answers(ray.get_runtime_context().gcs_address)
    check_answers("auto")


def test_the_command_ends_with_one_line_and_status_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert command.main(["prepare", "digits", "--run", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("raygrad: a Ray must answer at RAY_ADDRESS")
    assert not [line for line in said if "Traceback" in line]
