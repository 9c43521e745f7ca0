"""A DDP group inside a trial: its own process is rank 0, actors on the trial's bundles the rest.

A trial asks Tune for all its workers' bundles in one placement group, which Ray grants whole or not
at all. Ray Train inside Tune places its workers after the trial has started, with resources that
Tune does not know of: trials that each hold a part can then wait for each other for ever, and a
trial that takes every CPU leaves none for its own trainer. Its start also costs 15 to 20 s a trial;
here the actors are kept from trial to trial.
"""

import contextlib
import datetime
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray
import torch
import torch.distributed as dist
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # not in torch's stubs

from raygrad.engine.retries import final_error
from raygrad.engine.sweep.packing import TrialNeeds
from raygrad.engine.sweep.places import PlaceError
from raygrad.errors import IncompleteError, RaygradError

Result = TypeVar("Result")

# A peer that is gone is noticed at once, by its closed connection; this is for one that hangs.
TIMEOUT = datetime.timedelta(minutes=10)

_WATCH_S = 1.0
"""Rank 0 looks this often whether another one has failed."""

_peers: list[Any] = []
"""The actors of this process's group, kept while trials follow each other in it."""


class _Peer:
    """A rank above 0."""

    def prepare(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Does what may take longer on one node than on another."""
        function(*arguments)

    def run(
        self,
        address: tuple[str, int],
        rank: int,
        needs: TrialNeeds,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        """Joins the group and does its share of the work."""
        use_threads(needs)
        store = TCPStore(*address, needs.num_workers, is_master=False, timeout=TIMEOUT)
        with _joined(store, rank, needs):
            function(*arguments)


def run_in_group(
    needs: TrialNeeds,
    function: Callable[..., Result],
    *arguments: Any,
    before: Callable[..., Any] | None = None,
) -> Result:
    """Calls a function in every process of a trial's group; returns what rank 0 got.

    Called in the process of a Tune trial, or of an actor on the first bundle of a placement group.
    With one worker it is a plain call. Inside, torch.distributed is set up.

    Args:
        needs: What the trial takes; the placement group has a bundle for each worker.
        function: What each rank does.
        *arguments: What it is given; object references save copies.
        before: What each rank does before the group forms, given the same: within it, a rank that
            decodes a data set for an hour would be taken for one that hangs.

    Raises:
        IncompleteError: Another rank failed or was lost; all of them are to begin again.
        RaygradError: What raygrad itself found wrong on a rank, and would find again.
    """
    use_threads(needs)
    if needs.num_workers == 1:
        return function(*arguments)
    if not _peers:
        _peers.extend(_start_peers(needs))
    if before is not None:
        _prepare(before, arguments)
    host = ray.util.get_node_ip_address()
    store = TCPStore(
        host, 0, needs.num_workers, is_master=True, timeout=TIMEOUT, wait_for_workers=False
    )
    tasks = [
        peer.run.remote((host, store.port), rank, needs, function, arguments)
        for rank, peer in enumerate(_peers, start=1)
    ]
    own: list[BaseException] = []
    try:
        with _joined(store, 0, needs), _ended_with(tasks, own):
            result = function(*arguments)
        ray.get(tasks)
    except RaygradError:  # the cause: what other ranks meet now is its echo
        _end_peers()
        raise
    except (RuntimeError, ray.exceptions.RayError) as error:
        reason = next(iter(own), None) or _first_failure(tasks) or error
        _end_peers()
        raise _named(reason) from error
    return result


def _prepare(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    tasks = [peer.prepare.remote(function, arguments) for peer in _peers]
    function(*arguments)
    try:
        ray.get(tasks)
    except ray.exceptions.RayError as error:
        reason = _first_failure(tasks) or error
        _end_peers()
        raise _named(reason) from error


def _named(reason: BaseException) -> RaygradError:
    """Returns what a trial fails by, of why a rank did."""
    if isinstance(reason, PlaceError):
        return reason
    return final_error([reason]) or IncompleteError(
        f"every rank of a trial must finish, got {reason}. It is tried again."
    )


@contextlib.contextmanager
def _ended_with(tasks: list[Any], own: list[BaseException]) -> Iterator[None]:
    """Ends this rank's part in the group as soon as another rank has failed.

    Over sockets a rank that left is noticed; over NCCL the others would wait for its timeout.

    Args:
        tasks: What the others do.
        own: Is given this rank's error where none of them has failed: it is the cause then. Once
            it leaves the group they fail of that.
    """
    left = threading.Event()

    def watch() -> None:
        while not left.wait(_WATCH_S):
            if _first_failure(tasks, wait_s=0) is not None:
                dist.distributed_c10d._abort_process_group()  # nothing public ends a wait
                return

    watcher = threading.Thread(target=watch, daemon=True, name="raygrad-ranks")
    watcher.start()
    try:
        yield
    except RuntimeError as error:
        if _first_failure(tasks) is None:
            own.append(error)
        raise
    finally:
        left.set()
        watcher.join()


def use_threads(needs: TrialNeeds) -> None:
    """Gives torch the threads that the worker's CPUs stand for."""
    torch.set_num_threads(max(1, int(needs.cpus_each)))


def _start_peers(needs: TrialNeeds) -> Iterator[Any]:
    placement = ray.util.get_current_placement_group()
    for bundle in range(1, needs.num_workers):
        yield (
            ray.remote(_Peer)
            .options(
                num_cpus=needs.cpus_each,
                num_gpus=needs.gpus_each,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement, placement_group_bundle_index=bundle
                ),
            )
            .remote()
        )


def _end_peers() -> None:
    for peer in _peers:
        ray.kill(peer)
    _peers.clear()


@contextlib.contextmanager
def _joined(store: Store, rank: int, needs: TrialNeeds) -> Iterator[None]:
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if needs.gpus_each else "gloo",
        store=store,
        rank=rank,
        world_size=needs.num_workers,
        timeout=TIMEOUT,
    )
    try:
        yield
    finally:
        if dist.is_initialized():  # unless it was aborted
            dist.destroy_process_group()


def _first_failure(tasks: list[Any], wait_s: float = 2.0) -> BaseException | None:
    """Returns why a rank failed, if one has ended with an error: the cause, not its echo here."""
    ended, _ = ray.wait(tasks, num_returns=len(tasks), timeout=wait_s)
    for task in ended:
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return error.cause
        except ray.exceptions.RayError as error:
            return error
    return None
