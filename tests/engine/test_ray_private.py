"""What raygrad uses of Ray behind its interface: named, and refused by name where it is gone."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.data._internal import stats
from ray.train.torch import TorchTrainer

from raygrad.engine import ray_private, ray_private_train
from raygrad.engine.workers import no_agent
from raygrad.errors import ResourceError

ENGINE = Path(ray_private.__file__).parent
PRIVATE = r"ray\._private|ray\._raylet|class_cache|_register_sigint_handler|\bstate\.state\b"


def test_no_other_file_reaches_behind_rays_interface():
    found = [
        str(path.relative_to(ENGINE))
        for path in ENGINE.rglob("*.py")
        if not path.name.startswith("ray_private") and re.search(PRIVATE, path.read_text())
    ]
    assert found == []


def test_the_installed_ray_is_one_that_was_tested():
    assert ray.__version__ in ray_private.TESTED


@pytest.mark.parametrize(
    ("argument", "started"),
    [
        ("--num_prestart_python_workers=2", "--num_prestart_python_workers=0"),
        ("--dashboard_agent_command=py a.py", "--dashboard_agent_command=py a.py --minimal"),
        ("--runtime_env_agent_command=py b.py", "--runtime_env_agent_command=py b.py"),
        ("--head", "--head"),
    ],
)
def test_a_lean_node_is_started_without_idle_workers_and_what_serves_a_dashboard(argument, started):
    assert ray_private._lean(argument) == started


@pytest.mark.parametrize("version", ["2.59.1", "3.0.0", "1.13.0"])
def test_another_ray_is_refused_with_what_to_install(version):
    with pytest.raises(ResourceError, match=f"got {version}.*pip install"):
        ray_private.check_version(version)


@pytest.mark.parametrize("version", ["2.60.0", "2.61.3", "2.60.0rc1"])
def test_a_ray_of_the_range_is_taken(version):
    ray_private.check_version(version)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        ("ray._private.state.GlobalState", "get_cluster_config", ray_private.autoscaler_groups),
        (
            "ray.tune.execution.class_cache",
            "ENV_VARS_TO_PROPAGATE",
            lambda: ray_private.keep_from_trials(["A"]),
        ),
        (
            "ray.data._internal.stats",
            "get_or_create_stats_actor",
            ray_private.spare_data_statistics,
        ),
        (
            "ray.train.torch.TorchTrainer",
            "_create_default_callbacks",
            lambda: ray_private_train.trainer_class(lambda errors: True),
        ),
    ],
)
def test_a_ray_without_what_is_used_is_refused_by_name(owner, name, call, monkeypatch):
    module, _, holder = owner.rpartition(".")
    holder = getattr(pytest.importorskip(module), holder)
    for one in getattr(holder, "__mro__", (holder,)):
        if name in vars(one):
            monkeypatch.delattr(one, name)
    with pytest.raises(ResourceError, match=f"{name}, which raygrad uses.*2.60.0"):
        call()


@pytest.mark.parametrize("dashboard", [None, "127.0.0.1:8265"])
def test_ray_data_keeps_statistics_only_where_there_is_a_dashboard(dashboard, monkeypatch):
    """Nobody else reads them, and the actor that keeps them is a process of seconds."""
    monkeypatch.setattr(stats, "get_or_create_stats_actor", lambda: "the actor")
    node = SimpleNamespace(head=True, webui_url=dashboard)
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    for _ in range(2):
        ray_private.spare_data_statistics()
    found = stats.get_or_create_stats_actor()
    if dashboard:
        assert found == "the actor"
    else:
        assert found.update_execution_metrics.remote("tag", [], [], {}) is None


def test_no_placement_group_cleaner_is_started_beside_a_training():
    """It asks the state API for the one Ray of the machine, and fails where there are two."""
    trainer = ray_private_train.trainer_class(lambda errors: True)(
        lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=1)
    )
    names = {type(one).__name__ for one in trainer._create_default_callbacks()}
    assert "BackendSetupCallback" in names
    assert "PlacementGroupCleanerCallback" not in names


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ray.exceptions.OutOfMemoryError("Task was killed: low on memory.\nMemory: 31 GB"),
            "its process has died: OutOfMemoryError: Task was killed: low on memory.",
        ),
        (ray.exceptions.RayActorError(error_msg="The actor died"), "The actor died"),
    ],
)
def test_what_the_memory_monitor_kills_fails_its_trial_and_not_the_sweep(error, said):
    """In Tune's own class, which knows an actor that died and no other end of one."""
    failed, freed = [], []
    manager = RayActorManager(
        SimpleNamespace(free_resources=lambda acquired_resource: freed.append(acquired_resource))
    )
    actor = TrackedActor(1, on_error=lambda _, error: failed.append(error))
    task = TrackedActorTask(actor, on_error=lambda _, error: failed.append(error))
    manager._live_actors_to_ray_actors_resources[actor] = ("its handle", "its CPU")
    with ray_private.lost_processes_fail_their_trials():
        manager._actor_task_failed(task, error)
    assert [str(one) for one in failed] == [said] * 2
    assert isinstance(failed[0], ray.exceptions.RayActorError)
    assert manager.is_actor_failed(actor)
    assert freed == ["its CPU"]
    if type(error) is ray.exceptions.OutOfMemoryError:
        with pytest.raises(RuntimeError, match="unexpected"):
            manager._actor_task_failed(task, error)


@pytest.mark.parametrize(("labels", "most"), [({"raygrad": "train"}, 3), ({"raygrad": "!x"}, 5)])
def test_an_elastic_group_counts_the_nodes_that_are_selected(labels, most, monkeypatch):
    """Ray counts all, and would ask again and again for workers that those cannot hold."""
    named = {"a": {"raygrad": "train"}, "b": {"raygrad": "train"}, "c": {"raygrad": "x"}, "d": {}}
    nodes = [{"NodeID": name, "Labels": of} for name, of in named.items()]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    config = ray.train.ScalingConfig(num_workers=(1, 9), resources_per_worker={"CPU": 1.0})
    policy = ray_private_train._scaling_policy_class()(config, labels)
    there = {"a": {"CPU": 1.0}, "b": {"CPU": 2.0}, "c": {"CPU": 4.0}, "d": {"CPU": 2.0}}
    assert policy._count_possible_workers(there) == most


def test_only_an_elastic_group_with_labels_is_counted_otherwise(monkeypatch):
    given = []
    monkeypatch.setattr(
        TorchTrainer, "_initialize_and_run_controller", lambda _, **them: given.append(them)
    )
    for labels, workers in (({"a": "b"}, (1, 2)), ({"a": "b"}, 2), ({}, (1, 2))):
        trainer = ray_private_train.trainer_class(lambda errors: True, labels)(
            lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=workers)
        )
        trainer._initialize_and_run_controller(scaling_policy="Ray's")
    assert [them["scaling_policy"] == "Ray's" for them in given] == [False, True, True]
    ray.cloudpickle.dumps(given[0]["scaling_policy"])


def test_an_own_ray_starts_no_monitor_no_dashboards_server_and_no_agent_of_it(ray_session):
    """They are Python processes of seconds of CPU time, for an autoscaler and a browser."""
    import psutil

    node = ray._private.worker.global_worker.node
    assert {"monitor", "dashboard"}.isdisjoint(node.all_processes)
    (raylet,) = node.all_processes["raylet"]
    commands = [" ".join(one.cmdline()) for one in psutil.Process(raylet.process.pid).children()]
    assert [one for one in commands if no_agent.__file__ in one], "it stands in the agent's place"
    assert not [one for one in commands if "dashboard/agent.py" in one or "Dashboard" in one]
    assert node.start_monitor.__name__ == "start_monitor", "others' Rays start as ever"
