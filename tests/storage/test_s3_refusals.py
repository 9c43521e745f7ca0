"""S3 that says no: final at once, in one line that names what to set; an outage is waited for."""

import contextlib
import http.server
import threading
import time

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from raygrad import cli
from raygrad.cli.command import guarded
from raygrad.errors import (
    ConfigError,
    IncompleteError,
    StorageAwayError,
    StorageRefusedError,
)
from raygrad.storage import files, patience, s3, s3_client
from raygrad.storage.urls import expand
from tests.data.making import examples, tar
from tests.storage.s3_server import free_ports

AT_ONCE_S = 30
"""120 s before; most of this is room for a busy machine."""


@pytest.fixture(autouse=True)
def _impatience(monkeypatch):
    """What is not final at once shows as an IncompleteError, and not as a long test."""
    monkeypatch.setattr(s3, "RETRY_S", AT_ONCE_S + 5.0)


@pytest.fixture
def shard(s3_url):
    """A tar on the real server."""
    url = f"{s3_url}/a-0.tar"
    files.write_bytes(url, tar(examples([f"{n}" for n in range(6)])))
    return url


@pytest.fixture
def no_files(tmp_path, monkeypatch):
    """No credentials or profiles but those of the environment; returns where profiles go."""
    profiles = tmp_path / "config"
    profiles.write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profiles))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return profiles


WRONG = {
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        "Unable to locate credentials",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    "half of the credentials": (
        {"AWS_SECRET_ACCESS_KEY": None},
        "Partial credentials",
        "Set all of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "a key that is unknown": (
        {"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId", "Check the credentials",
    ),
    "a wrong secret": (
        {"AWS_SECRET_ACCESS_KEY": "x"}, "SignatureDoesNotMatch", "Check the credentials",
    ),
    "a profile that is not there": (
        {"AWS_PROFILE": "nope"}, "profile (nope) could not be found", "Set AWS_PROFILE to one of",
    ),
    "an endpoint without http": (
        {"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, "got '127.0.0.1:9000'", "Write http:// or https://",
    ),
    "an endpoint where nobody listens": (
        {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}"},
        "Could not connect",
        "Check AWS_ENDPOINT_URL",
    ),
    "an endpoint whose name is unknown": (
        {"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, "nowhere.invalid", "Check AWS_ENDPOINT_URL",
    ),
    "a region that is no name": (
        {"AWS_DEFAULT_REGION": "not a region"}, "region", "Check the AWS_* variables",
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", ["{0..0}.tar", "*.tar"])
@pytest.mark.parametrize("name", WRONG)
def test_a_command_says_at_once_what_to_set(
    name, asked, shard, s3_env, no_files, monkeypatch, tmp_path, capsys
):
    """Reads (braces) and listings (globs) through the one client: exit status 2, one line."""
    environment, what, remedy = WRONG[name]
    for variable, value in environment.items():
        if value is None:
            monkeypatch.delenv(variable)
        else:
            monkeypatch.setenv(variable, value)
    monkeypatch.setattr(patience, "FIRST_ANSWER_S", 1.0)
    start_s = time.monotonic()
    url = shard.replace("0.tar", asked)
    assert cli.main(["index", url, "--run", str(tmp_path / "run")]) == 2
    assert time.monotonic() - start_s < AT_ONCE_S
    said = capsys.readouterr().err
    assert what in said
    assert remedy in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_endpoint_of_the_profile_serves_reads_listings_and_the_filesystem(
    shard, s3_env, no_files, monkeypatch
):
    no_files.write_text(f"[default]\nendpoint_url = {s3_env.endpoint}\nregion = us-east-1\n")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    s3_client._client.cache_clear()
    assert expand(shard.replace("0.tar", "*.tar")) == [shard]
    assert files.read_bytes(shard)
    system, path = files.filesystem(shard)
    assert system.get_file_info(path).size == len(files.read_bytes(shard))
    s3_client._client.cache_clear()


MISSING = {
    "key": ("s3://probe/none/a.tar", "shards must exist, got none at s3://probe/none/a.tar"),
    "bucket": ("s3://no-such-bucket-here/a.tar", "s3://no-such-bucket-here/a.tar"),
    "folder": ("s3://probe/none/*.tar", "a glob must match a file"),
    "listed bucket": ("s3://no-such-bucket-here/x/*.tar", "no 'no-such-bucket-here'"),
    "name of a bucket": ("s3://UPPER_case/a.tar", "s3://UPPER_case/a.tar"),
    "local file": ("nowhere/a.tar", "shards must exist, got none at nowhere/a.tar"),
    "local folder": ("nowhere/*.tar", "a glob must match a file"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_one_line_and_never_a_traceback(name, s3_env, tmp_path, capsys):
    url, says = MISSING[name]
    assert cli.main(["index", url, "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Check" in said
    assert said.count("\n") == 1


def test_a_run_folder_in_a_bucket_that_is_not_there_is_one_line(s3_env, capsys):
    for run in ("s3://no-such-bucket-here/run", "s3://probe/none"):
        assert cli.main(["select", run]) == 2
        assert capsys.readouterr().err.count("\n") == 1


class _Answer(http.server.BaseHTTPRequestHandler):
    """Answers every request as its server is told."""

    def do_GET(self) -> None:
        status, body = self.server.answer
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked += 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@contextlib.contextmanager
def answering(monkeypatch, status, body):
    """A server on loopback that gives one answer."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.answer, server.asked = (status, body), 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def refusal(code, text=""):
    return (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    )


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, "ExpiredToken", "aws sso login"),
        (400, "InvalidToken", "AWS_SESSION_TOKEN"),
        (403, "AccessDenied", "Check the credentials"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "AuthorizationHeaderMalformed", "AWS_DEFAULT_REGION"),
        (404, "NoSuchBucket", "make it"),
        (405, "MethodNotAllowed", "Check the credentials"),
    ],
)
@pytest.mark.parametrize("ask", ["read", "list", "write"])
def test_a_refusal_is_final_with_its_reason_also_where_a_head_request_hides_it(
    status, code, remedy, ask, monkeypatch
):
    asks = {
        "read": lambda: files.open_input("s3://bucket/key"),
        "list": lambda: files.list_files("s3://bucket/folder"),
        "write": lambda: files.write_bytes("s3://bucket/key", b"1"),
    }
    with answering(monkeypatch, status, refusal(code, "No.")) as server:
        if (code, ask) == ("NoSuchBucket", "read"):  # a HEAD request says 404 and no more
            with pytest.raises(FileNotFoundError):
                asks[ask]()
            return
        with pytest.raises(ConfigError, match=remedy) as caught:
            asks[ask]()
        assert server.asked <= 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_a_server_in_trouble_is_asked_again(status, code, monkeypatch):
    monkeypatch.setattr(s3, "RETRY_S", 0.2)
    with (
        answering(monkeypatch, status, refusal(code)) as server,
        pytest.raises(IncompleteError, match=r"must answer within 0\.2 s"),
    ):
        files.list_files("s3://bucket/folder")
    assert server.asked > 1


def test_a_worker_waits_for_a_server_that_has_not_answered_yet(s3_env, monkeypatch):
    """What is final for who has just typed a wrong address is an outage to a worker's node."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(IncompleteError, match=r"within 0\.2 s"):
        s3.retrying(lambda: s3.client().list_buckets(), "s3://bucket/key", 0.2)
    with patience.of_a_command(), pytest.raises(ConfigError, match="S3 must answer at http"):
        s3.retrying(lambda: s3.client().list_buckets(), "s3://bucket/key", 0.2)


def test_a_command_that_has_had_an_answer_waits_through_an_outage(shard, s3_env, monkeypatch):
    monkeypatch.setattr(patience, "FIRST_ANSWER_S", 0.0)
    answers = iter([EndpointConnectionError(endpoint_url="http://x")] * 3 + [b"1"])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with patience.of_a_command():
        files.file_size(shard)
        assert s3.retrying(call, shard) == b"1"


def _refusing(code, num, then=b"1"):
    """Returns a request that is refused so often, and a list of how often it was made."""
    made = []

    def call():
        made.append(code)
        if len(made) <= num:
            raise ClientError(
                {
                    "Error": {"Code": code, "Message": "no"},
                    "ResponseMetadata": {"HTTPStatusCode": 403},
                },
                "GetObject",
            )
        return then

    return call, made


@pytest.fixture
def never_let_in(monkeypatch):
    """A process that has read nothing yet."""
    monkeypatch.setattr(patience, "_let_in", set())


TOKENS = ["ExpiredToken", "RequestTimeTooSkewed", "InvalidAccessKeyId"]


@pytest.mark.parametrize("code", [*TOKENS, "AccessDenied"])
def test_a_command_that_was_never_let_in_is_refused_at_once_as_a_matter_of_setup(
    code, never_let_in
):
    call, made = _refusing(code, 1)
    with patience.of_a_command(), pytest.raises(StorageRefusedError):
        s3.retrying(call, "s3://b/x/a")
    assert len(made) == 1


@pytest.mark.parametrize("code", TOKENS)
def test_a_command_whose_token_is_refused_after_it_was_let_in_waits(code, never_let_in, caplog):
    """Wherever it was let in; that it waits is said, once."""
    call, made = _refusing(code, 2)
    with patience.of_a_command():
        s3.retrying(lambda: b"", "s3://b/x/a")
        assert s3.retrying(call, "s3://other/y/a") == b"1"
    assert len(made) == 3
    assert caplog.text.count("asked again for") == 1


def test_a_refusal_that_stays_is_storage_trouble_and_can_be_gone_on_with(never_let_in):
    """Status 3, and not 2: nothing is wrong with the command, and what is done is kept."""
    call, made = _refusing("ExpiredToken", 99)

    def work():
        s3.retrying(lambda: b"", "s3://b/x/a")
        with pytest.raises(StorageAwayError, match=r"ExpiredToken.*s3://b/x/a.*run again"):
            s3.retrying(call, "s3://b/x/a", 0.3)
        assert len(made) > 1
        s3.retrying(call, "s3://b/x/a", 0.0)

    assert guarded(work) == 3


@pytest.mark.parametrize(
    ("before", "now"),
    [(("s3://b/x/a", False), ("s3://b/y/a", False)), (("s3://b/x/a", False), ("s3://b/x/a", True))],
    ids=["another folder", "written and not read"],
)
def test_what_was_never_allowed_is_a_matter_of_setup_whatever_else_was(before, now, never_let_in):
    call, made = _refusing("AccessDenied", 1)
    with patience.of_a_command():
        s3.retrying(lambda: b"", before[0], writes=before[1])
        with pytest.raises(StorageRefusedError):
            s3.retrying(call, now[0], writes=now[1])
        s3.retrying(lambda: b"", now[0], writes=now[1])
        call, made = _refusing("AccessDenied", 1)
        assert s3.retrying(call, now[0], writes=now[1]) == b"1"
    assert len(made) == 2


def test_a_worker_does_not_wait_for_a_token_here(never_let_in):
    """Those that sent it decide, and are told every half minute."""
    call, made = _refusing("ExpiredToken", 1)
    s3.retrying(lambda: b"", "s3://b/x/a")
    with pytest.raises(StorageRefusedError):
        s3.retrying(call, "s3://b/x/a")
    assert len(made) == 1
