"""Every place where raygrad reaches into Ray behind its public interface, and nothing else.

What stands here may change with any release of Ray. Each function says what it needs and why there
is no public way; where Ray no longer has it, the error names it and the versions that had it.
"""

import contextlib
import os
import signal
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from raygrad.engine import own_nodes
from raygrad.errors import ResourceError

TESTED = ("2.60.0",)
"""The versions of Ray that every function here was tested with."""

_FROM, _BELOW = (2, 60), (3, 0)


def check_version(version: str) -> None:
    """Raises unless a version of Ray is one that raygrad may run with.

    Raises:
        ResourceError: It is older or newer.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    if not _FROM <= (major, minor) < _BELOW:
        raise ResourceError(
            f"Ray must be at least 2.60 and below 3, got {version}. "
            f"Install one that was tested: pip install 'ray[data,train,tune]=={TESTED[-1]}'."
        )


def part(owner: Any, name: str) -> Any:
    """Returns an attribute that is not part of Ray's interface.

    Raises:
        ResourceError: This Ray does not have it.
    """
    import ray

    if not hasattr(owner, name):
        where = getattr(owner, "__name__", type(owner).__name__)
        raise ResourceError(
            f"Ray must have {where}.{name}, which raygrad uses, got Ray {ray.__version__} "
            f"without it. Install one that was tested: ray {', '.join(TESTED)}."
        )
    return getattr(owner, name)


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Keeps the handler of SIGTERM that there is, if any, from being replaced by Ray's two.

    The one in Python raises SystemExit, also where Ray waits in compiled code; the one of Ray's
    core, which stands behind Python's back, prints a stack. Either ends the process with SIGABRT.
    `ray.init` has no argument for it.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    import ray._private.utils as utils

    try:
        with _replaced(utils, set_sigterm_handler=lambda _: None):
            yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def lean_node() -> Iterator[None]:
    """Starts of a Ray that ends with its driver take less CPU time.

    They go without three servers that nobody asks, and without the agent that would serve their
    node's dashboard; their workers are forks of one (`workers/`). A node that is slow to be there
    is waited for: Ray gives it half a minute, and has no setting for it.
    """
    import ray
    from ray._private import services
    from ray._private.node import Node

    from raygrad.engine.workers.starting import forked_workers

    def none(node: Any, **_: Any) -> None:
        node._webui_url = None

    spared = dict.fromkeys(("start_monitor", "start_api_server", "start_log_monitor"), none)
    own_script = os.path.join(ray.__path__[0], "_private", "workers", "setup_worker.py")
    patient = own_nodes.while_raylet_starts(part(services, "get_node"))
    with (
        _replaced(Node, **spared),
        _replaced(services, get_node=patient),
        forked_workers(own_script) as script,
    ):
        if script is None:
            yield
            return
        start_raylet = part(Node, "start_raylet")
        start_process = part(services, "start_ray_process")

        def forking(node: Any, *arguments: Any, **named: Any) -> None:
            node._ray_params.setup_worker_path = script
            start_raylet(node, *arguments, **named)

        def lean(command: Sequence[str], *arguments: Any, **named: Any) -> Any:
            return start_process([_lean(one) for one in command], *arguments, **named)

        with (
            _replaced(Node, start_raylet=forking),
            _replaced(services, start_ray_process=lean),
        ):
            yield


def _lean(argument: str) -> str:
    """Returns an argument of Ray's processes as a lean node has it: most stay as they are."""
    name, _, value = argument.partition("=")
    if name == "--num_prestart_python_workers":
        return f"{name}=0"
    if name == "--dashboard_agent_command":
        return f"{name}={own_nodes.without_agent(value, _port_file)}"
    return argument


def _port_file(node: str, service: str) -> str:
    """Returns the name of the file in which a node reads at which port a service is."""
    from ray import _raylet

    return str(part(_raylet, "get_port_filename")(node, part(_raylet, f"{service}_PORT_NAME")))


@contextlib.contextmanager
def _replaced(owner: Any, **parts: Any) -> Iterator[None]:
    """Puts others in the place of parts of Ray while the context lasts."""
    kept = {name: part(owner, name) for name in parts}
    for name, other in parts.items():
        setattr(owner, name, other)
    try:
        yield
    finally:
        for name, own in kept.items():
            setattr(owner, name, own)


@contextlib.contextmanager
def classes_named_by_the_system() -> Iterator[None]:
    """Has Ray name classes of actors by bytes of the system, and not of its own generator.

    `ray.data` makes such classes while it is imported. The generator's seeds, drawn once, would be
    those of every fork: two workers would give their objects and tasks the same names.
    """
    import ray.actor

    own = part(ray.actor, "ActorClassID")

    class ActorClassID:
        @staticmethod
        def from_random() -> Any:
            return own(os.urandom(own.size()))

    with _replaced(ray.actor, ActorClassID=ActorClassID):
        yield


def drawn_id() -> bytes:
    """Returns an identity that Ray's own generator draws, as it names objects, tasks and actors."""
    import ray

    return bytes(part(ray, "UniqueID").from_random().binary())


def threads_as_ray_says() -> None:
    """Has the torch of this worker, a fork, take as many threads as Ray says just before a task.

    Ray sets OMP_NUM_THREADS, too late for a torch that is there.
    """
    from ray._private import utils

    say = part(utils, "set_omp_num_threads_if_unset")

    def said() -> bool:
        is_set = bool(say())
        if is_set and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        return is_set

    utils.set_omp_num_threads_if_unset = said


def shutdown() -> None:
    """Ends Ray in this process, and keeps the handler of SIGTERM that there is.

    Ray's core, as it ends, sets the signal back to the system's default behind Python's back: a
    report after a sweep would be killed by it without a word.
    """
    import ray

    from raygrad.engine import vital
    from raygrad.engine.workers import starting

    handler = signal.getsignal(signal.SIGTERM)
    vital.unwatch()
    try:
        with own_nodes.agents_end_with_their_node():
            ray.shutdown()
        starting.close()
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def autoscaler_groups() -> list[tuple[dict[str, float], int | None]]:
    """Returns, for each group of nodes of the autoscaler, a node's resources and how many at most.

    None stands for a group without a bound; the list is empty without an autoscaler.
    """
    import ray

    config = part(ray._private.state.state, "get_cluster_config")()
    if config is None:
        return []
    return [
        (
            {name: float(amount) for name, amount in group.resources.items()},
            group.max_count if group.max_count >= 0 else None,
        )
        for group in config.node_group_configs
    ]


class _Nobody:
    """Stands for Ray Data's statistics actor; whatever it is told is forgotten."""

    def __getattr__(self, name: str) -> Any:
        return types.SimpleNamespace(remote=lambda *_: None)

    @property
    def gen_dataset_id(self) -> Any:
        """Answers as the actor does: a data set's id is all that anybody asks it for."""
        import ray

        return types.SimpleNamespace(remote=lambda: ray.put(uuid.uuid4().hex))


def spare_data_statistics() -> None:
    """Lets Ray Data go without the actor that keeps statistics for a dashboard, where none is.

    That is where this process has started Ray itself. Ray Data has no setting for it.
    """
    import ray
    from ray.data._internal import stats

    start = part(stats, "get_or_create_stats_actor")
    if getattr(start, "is_spared", False):
        return

    def found() -> Any:
        node = part(ray._private.worker, "_global_node")
        return _Nobody() if node is not None and node.head and not node.webui_url else start()

    found.is_spared = True  # type: ignore[attr-defined]  # once is enough
    stats.get_or_create_stats_actor = found


def end_data_execution(iterating: threading.Thread, others: Iterable[Any], within_s: float) -> None:
    """Ends what Ray Data executes for a thread that iterates, and waits, so long at most, for both.

    Its scheduling thread, among `others` before, would ask things of a Ray that is being shut down,
    which then starts anew, aborts the process or ends it unsaid. Only the thread that iterates has
    a public way to end it, and that thread waits for the next row.
    """
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    def end() -> None:
        while iterating.is_alive():  # until then an execution may yet begin
            begun = [one for one in threading.enumerate() if isinstance(one, StreamingExecutor)]
            for one in set(begun).difference(others):
                one.shutdown(force=True)
            iterating.join(0.05)

    # In a thread: a cluster that has gone answers nothing, and must not hold up Ctrl-C.
    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(within_s)


def keep_from_trials(names: Iterable[str]) -> None:
    """Keeps variables of the driver's environment from being sent to the processes of Tune.

    Tune sends a fixed set of names, in a runtime environment that Ray logs and shows.
    """
    from ray.tune.execution import class_cache

    part(class_cache, "ENV_VARS_TO_PROPAGATE").difference_update(names)


def drain_deadline_ms(node: str) -> int | None:
    """Returns until when a node goes on that is being drained, in Unix time, 0 where nobody knows.

    None stands for a node that stays. Only workers of Ray Train have a public way to ask.
    """
    import ray

    deadline: int | None = part(ray._private.state.state, "get_draining_nodes")().get(node)
    return deadline


@contextlib.contextmanager
def trials_recover_by(decide: Callable[[Any], bool]) -> Iterator[None]:
    """Has Tune, which counts all failures, ask `decide` whether a failed trial is tried again."""
    from ray.tune.experiment import Trial

    # A function, which binds to the trial.
    with _replaced(Trial, should_recover=lambda trial: decide(trial)):
        yield


@contextlib.contextmanager
def lost_processes_fail_their_trials() -> Iterator[None]:
    """Has Tune take whatever Ray says of a trial's lost process for the failure of that trial.

    Tune knows an actor that died and an error inside of one. What Ray's memory monitor kills is
    neither to it, and ends the whole sweep.
    """
    from ray.air.execution._internal import RayActorManager
    from ray.exceptions import RayActorError, RayError, RayTaskError

    own = part(RayActorManager, "_actor_task_failed")

    def failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(
            exception, RayActorError | RayTaskError
        ):
            reason = (str(exception).strip().splitlines() or [""])[0]
            said = f"its process has died: {type(exception).__name__}: {reason}"
            exception = RayActorError(error_msg=said)
        own(manager, tracked_actor_task, exception)

    with _replaced(RayActorManager, _actor_task_failed=failed):
        yield
