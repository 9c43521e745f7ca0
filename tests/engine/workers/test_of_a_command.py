"""Workers of a Ray that raygrad starts are forks, also where the server began before Ray did."""

import json
import os
import subprocess
import sys

import pytest

TELLS = """
import json, sys
from raygrad.engine import session
with session.session():
    session.expect_ray()
    session.ensure_ray()
    import ray

    @ray.remote(num_cpus=1)
    def told():
        import os, sys
        parent = open(f"/proc/{os.getppid()}/cmdline").read()
        import torch
        return "fork_server" in parent, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    print(json.dumps(ray.get(told.remote())))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
@pytest.mark.parametrize(("set_here", "is_fork"), [({}, True), ({"RAYGRAD_NO_FORK": "1"}, False)])
def test_a_worker_is_a_fork_unless_that_is_turned_off(set_here, is_fork):
    """It takes the threads that Ray says, also where nobody has bounded them."""
    names = ("OMP_NUM_THREADS", "MALLOC_ARENA_MAX", "RAY_ADDRESS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    ran = subprocess.run(
        [sys.executable, "-c", TELLS],
        env={**inherited, **set_here},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == [is_fork, 1, "1"]
