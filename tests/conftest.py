import os

import pytest

from tests.cases import make_tiny_config


@pytest.fixture(scope="session")
def ray_session():
    """One Ray of two CPUs for every test of a worker process; ended with the session."""
    import ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, logging_level=40, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture
def tiny_config(tmp_path):
    """A configuration whose run folder is not there yet."""
    return make_tiny_config(tmp_path)
