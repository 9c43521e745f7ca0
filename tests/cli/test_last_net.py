"""What the system or Ray says becomes one line and a log; a defect keeps its traceback."""

import errno
import re
from pathlib import Path

import pytest
import ray

from raygrad import cli
from raygrad.cli import command, last_net


def run(monkeypatch, tmp_path, error):
    """The command's exit status where its work ends with an error."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def work():
        raise error

    return command.guarded(work)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (FileNotFoundError(2, "No such file", "/a/b"), 2, "none at /a/b. Check the path."),
        (FileNotFoundError("s3://bucket/key"), 2, "none at s3://bucket/key"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, "no right to /a/b"),
        (NotADirectoryError(20, "Not a directory", "/a/b"), 2, "Not a directory at /a/b"),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), 1, "Make room"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "Too many open files"),
        (ConnectionResetError(104, "Connection reset by peer"), 1, "Connection reset"),
        (ray.exceptions.RaySystemError("gone\nstack"), 3, "got RaySystemError"),
        (ray.exceptions.ObjectStoreFullError(), 3, "ObjectStoreFullError"),
    ],
)
def test_an_error_from_outside_is_one_line_and_a_log(
    error, status, says, monkeypatch, tmp_path, capsys
):
    assert run(monkeypatch, tmp_path, error) == status
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    log = re.search(r"Details: (\S+\.log)", said)[1]
    assert "Traceback" in Path(log).read_text()


def test_what_a_worker_raised_is_said_as_its_own(monkeypatch, tmp_path, capsys):
    inner = PermissionError(13, "Permission denied", "/data")
    error = ray.exceptions.RayTaskError("f", "stack", inner)
    assert run(monkeypatch, tmp_path, error) == 2
    assert "no right to /data" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch, tmp_path):
    with pytest.raises(KeyError):
        run(monkeypatch, tmp_path, KeyError("x"))
    assert last_net.caught(ValueError("x")) is None


def test_a_log_that_cannot_be_written_is_no_second_error(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path / "nowhere", OSError(errno.ENOSPC, "full", "/a")) == 1
    assert "the log could not be written" in capsys.readouterr().err


def test_the_statuses_are_those_of_the_command():
    assert (cli.command.EXIT_ERROR, cli.command.EXIT_USAGE) == (1, 2)
