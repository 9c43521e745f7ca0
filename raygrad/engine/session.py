"""The Ray session that a stage runs in.

Ray is imported by what uses it: the command asks for a session before it knows whether it will.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from raygrad.engine import own_nodes, ray_private, vital
from raygrad.engine.address import check_answers
from raygrad.engine.workers import starting
from raygrad.errors import ResourceError


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Ends, when the context ends, the Ray that `ensure_ray` started in it, and no other."""
    was_running = _is_running()
    try:
        yield
    finally:
        if not was_running:
            if _is_running():
                ray_private.shutdown()
            starting.close()


def _is_running() -> bool:
    # Importing Ray takes a second; what has not been imported does not run.
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or "local"


def joins_cluster() -> bool:
    """Tells whether work is done by a Ray that was there before, perhaps on other machines."""
    return _address() != "local"


def expect_ray() -> None:
    """Loads what workers need beside a command that will need them, and has not begun.

    A Ray that is joined has its own way to start workers.
    """
    if _address() == "local" and not _is_running():
        _set_environment()
        starting.start()


def _set_environment() -> None:
    """Sets what processes of an own Ray read while they load, before the first of them."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Tune runs every trial in a thread of its own, and glibc gives threads heaps of their own,
    # eight a core, each of which keeps what its trial freed: half a gigabyte a process.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")


def ensure_ray() -> None:
    """Makes Ray run: the one already joined, the cluster in RAY_ADDRESS, or one of our own.

    Called by a stage that has work to do, so that a study that is complete starts no Ray at all.
    A cluster that happens to run on the machine is never joined by accident.

    Raises:
        ConfigError: RAY_ADDRESS is no address.
        ResourceError: Nobody answers there, or Ray cannot be started.
    """
    import ray

    ray_private.check_version(ray.__version__)
    if ray.is_initialized():
        return
    # Ray's own lines would drown the stages' progress; what workers write stays in Ray's log files.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    address = _address()
    if address == "local":
        _set_environment()
    else:
        check_answers(address)
    try:
        with contextlib.ExitStack() as start:
            start.enter_context(ray_private.own_sigterm())
            if address == "local":
                start.enter_context(ray_private.lean_node())
                start.enter_context(own_nodes.whole_start())
            ray.init(
                address=address,
                include_dashboard=False if address == "local" else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:
        # Nobody there, another version, a token that is refused; a node that does not start on a
        # machine with much to do is a plain Exception of Ray's.
        reason = str(error).strip().splitlines()[0]
        what = "start on this machine" if address == "local" else f"be joined at {address}"
        raise ResourceError(f"Ray must {what}, got {reason!r}. Mend that and run again.") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if address == "local":
        vital.watch_own_ray(_is_running)
        ray.remote(num_cpus=0)(_nothing).remote()
    else:
        # Ray finds "auto" on this machine; of a client (ray://) no other address need be reachable.
        found = ray.get_runtime_context().gcs_address if address == "auto" else address
        vital.watch_joined_ray(found, _is_running)


def _nothing() -> None:
    """Runs while the driver goes on: what is loaded for the first worker serves all others."""
