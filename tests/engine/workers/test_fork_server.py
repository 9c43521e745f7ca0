"""A fork is what the asking process would have become; it ends with those it belongs to."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from raygrad.engine.workers import fork_server, launcher, starting
from tests import preloaded

TELLS = """
import json, os, signal, sys, threading
import numpy, torch
from raygrad.engine.ray_private import drawn_id
drawn = [drawn_id().hex()]
thread = threading.Thread(target=lambda: drawn.append(drawn_id().hex()))
thread.start()
thread.join()
told = {
    "drawn": drawn,
    "name": __name__, "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(),
    "variable": os.environ.get("ONE"), "group": os.getpgid(0) == os.getpid(),
    "usr1": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
    "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "int": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "blocked": signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    "threads": threading.active_count(), "torch_threads": torch.get_num_threads(),
    "random": [float(numpy.random.rand()), __import__("random").random()],
    "cuda": torch.cuda.is_initialized(), "asked": "RAYGRAD_FORK_SERVER" in os.environ,
    "pid": os.getpid(), "parent": os.getppid(), "ray": os.environ.get("RAY_JOB_ID"),
    "compiler": "torch._dynamo" in sys.modules,
    "of_ray": sorted(n for n in os.environ if n.startswith(("RAY_TRAIN_", "RAY_WARN_"))),
}
print("err", file=sys.stderr)
print(json.dumps(told), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    """A fork server of this module's own."""
    one = starting.ForkServer()
    yield one
    one.close()


@pytest.fixture
def worker(tmp_path, server):
    """Starts workers as Ray's node does, by the launcher, and returns what they tell."""
    script = tmp_path / "worker.py"
    script.write_text(TELLS)
    plain = tmp_path / "plain.py"
    plain.write_text("print('plain')")

    def start(*arguments, path=server.path, env=(), **how):
        out = tmp_path / "out"
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RAY_JOB_ID": "01000000",
            launcher.SOCKET: path,
            launcher.SCRIPT: str(plain),
            **dict(env),
        }
        with out.open("w") as to:
            subprocess.run(
                [sys.executable, launcher.__file__, "--language=PYTHON", str(script), *arguments],
                stdout=to,
                env=environment,
                cwd=tmp_path,
                check=True,
                **how,
            )
        end_s = time.monotonic() + 60
        while not out.read_text().endswith("\n") and time.monotonic() < end_s:
            time.sleep(0.01)
        said = out.read_text()
        return said.strip() if said == "plain\n" else json.loads(said)

    return start


def test_a_fork_has_arguments_folder_variables_and_streams_of_the_asking(worker, tmp_path):
    told = worker("--a=1", env={"ONE": "two"}.items())
    assert told["name"] == "__main__"
    assert told["arguments"] == [str(tmp_path / "worker.py"), "--a=1"]
    assert told["path"] == told["folder"] == str(tmp_path)
    assert told["variable"] == "two"
    assert told["ray"] == "01000000"
    assert not told["asked"]


def test_a_fork_hears_signals_as_the_asking_does(worker):
    def of_node():
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where pytest is in the background
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    told = worker(preexec_fn=of_node)
    names = ("usr1", "blocked", "int", "group", "term")
    assert [told[name] for name in names] == [True, True, True, True, True]
    told = worker(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert [told[name] for name in names] == [False, False, True, False, True]


def test_forks_share_no_random_state_no_thread_and_no_device(worker):
    one, other = worker(), worker()
    assert one["pid"] != other["pid"]
    assert one["random"][0] != other["random"][0]
    assert one["random"][1] != other["random"][1]
    assert len({*one["drawn"], *other["drawn"]}) == 4
    assert one["threads"] == 1
    assert not one["cuda"]
    assert one["torch_threads"] == 1


def test_other_variables_of_ray_get_a_server_of_their_own(worker):
    first, again = worker(), worker()
    other = worker(env={"RAY_JOB_ID": "02000000"}.items())
    assert first["parent"] == again["parent"]
    assert other["parent"] != first["parent"]
    assert other["ray"] == "02000000"


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "OMP_NUM_THREADS", "LD_BIND_NOW"])
def test_what_is_read_while_loading_is_not_forked(worker, name):
    assert worker(env={name: "7"}.items()) == "plain"


def test_what_ray_sets_as_it_starts_leaves_the_next_ones_workers_forks(worker):
    """A session that starts Ray a second time has this variable, and its fork server has not."""
    assert worker(env={"PYTHONBREAKPOINT": "ray.util.rpdb.set_trace"}.items()) != "plain"


def test_rubbish_at_the_socket_changes_nothing(worker, server):
    for rubbish in (b"", b"x", b"x{not json}\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.connect(server.path)
            if rubbish:
                one.sendall(rubbish)
    assert worker()["name"] == "__main__"


def test_what_training_needs_is_loaded_for_later_workers(worker, server):
    before = worker()
    server.load_for_training()
    after = worker()
    assert (before["compiler"], after["compiler"]) == (False, True)
    assert after["parent"] == before["parent"], "Ray is not imported a second time for it"
    assert after["threads"] == 1


def test_what_is_read_when_it_is_needed_needs_no_server_of_its_own(worker):
    one, other = worker(), worker(env=dict.fromkeys(fork_server.READ_AT_USE, "1").items())
    assert one["parent"] == other["parent"]
    assert other["of_ray"] == sorted(fork_server.READ_AT_USE), "but the worker has it"


def test_nothing_reads_while_it_is_imported_what_a_fork_may_have_otherwise(tmp_path):
    """Of the variables that Ray reads as it is imported, as a worker imports it."""
    code = (
        "import os\n"
        "class Watched(type(os.environ)):\n"
        "    read = set()\n"
        "    def __getitem__(self, name):\n"
        "        self.read.add(name)\n"
        "        return super().__getitem__(name)\n"
        "os.environ.__class__ = Watched\n"
        "from raygrad.engine.workers import fork_server, starting\n"
        "fork_server.load([*fork_server.LOADED_WITH_RAY, *starting.FOR_TRAINING_WITH_RAY])\n"
        "assert 'RAY_JOB_ID' in os.environ.read or len(os.environ.read) > 20, os.environ.read\n"
        "print(sorted(os.environ.read & fork_server.READ_AT_USE))\n"
    )
    environment = {**os.environ, **dict.fromkeys(fork_server.READ_AT_USE, "1")}
    ran = preloaded.ran(["-c", code], environment, tmp_path, 60)
    assert ran.stdout == "[]\n", ran.stderr


def test_forks_of_a_process_that_has_drawn_names_of_ray_are_refused(worker):
    """Two workers would give different objects, or tasks, the same name."""
    one = starting.ForkServer()
    try:
        assert worker(path=one.path)["name"] == "__main__"
        wish = {"load": [], "load_with_ray": ["tests.engine.workers.draws_at_import"]}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(one.path)
            asking.sendall(b"f" + json.dumps(wish).encode() + b"\n")
        assert worker(path=one.path) == "plain"
    finally:
        one.close()


def test_actors_of_ray_name_what_they_put_differently(ray_session):
    """Each from a thread of its own, as a training's ranks do; all of them are forks."""
    import ray

    @ray.remote(num_cpus=0)
    class Puts:
        def put(self):
            names = []
            thread = threading.Thread(target=lambda: names.append(ray.put(os.getpid()).hex()))
            thread.start()
            thread.join()
            return names[0]

    actors = [Puts.remote() for _ in range(6)]
    assert len(set(ray.get([one.put.remote() for one in actors]))) == 6


def test_a_server_that_has_loaded_by_other_variables_is_replaced(monkeypatch):
    monkeypatch.setattr(starting, "_servers", [])  # not the one of the session's Ray
    first = starting.start()
    try:
        assert starting.start() is first
        monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
        second = starting.start()
        assert second is not first
        assert not first.is_alive
        assert second.is_alive
    finally:
        starting.close()


def test_the_socket_is_for_this_user_alone(server):
    assert os.stat(os.path.dirname(server.path)).st_mode & 0o077 == 0


def test_a_server_whose_driver_is_killed_ends_with_its_layers(tmp_path):
    code = (
        "import os, time\n"
        "from raygrad.engine.workers import starting\n"
        "one = starting.ForkServer()\n"
        "print(one._process.pid, one.path, flush=True)\n"
        "time.sleep(600)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, path = driver.stdout.readline().split()
    driver.kill()
    driver.wait()
    end_s = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(os.path.dirname(path))


def test_a_closed_server_leaves_nothing_and_workers_begin_as_ray_starts_them(worker):
    one = starting.ForkServer()
    one.close()
    assert not os.path.exists(one.path)
    assert worker(path=one.path) == "plain"
