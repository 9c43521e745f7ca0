"""What raygrad changes in Ray Train behind its public interface; see `ray_private`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raygrad.config.nodes import is_selected
from raygrad.engine.ray_private import part


def trainer_class(
    goes_on: Callable[[Sequence[BaseException]], bool], labels: Mapping[str, str] | None = None
) -> type:
    """Returns Ray's trainer, changed in the things below; import it where Ray Train is used.

    Workers that failed, or did not start, are started again as `goes_on` says of their errors: Ray
    counts failures over the whole training, however far it got between them. A group of elastic
    size that finds no room is Ray's own affair, as is a node that was drained.

    Such a group is as large as nodes of these labels have room for: Ray counts all nodes, and asks
    for workers that the selected ones cannot hold, again and again.

    Ctrl-C is a KeyboardInterrupt as everywhere else: the handler that Ray would register ends the
    process with status 1 and without a word, and stays, so that Ctrl-C in the scoring after a
    training would meet it too.

    No `PlacementGroupCleaner` is started. It removes the placement group of a training whose
    controller was killed, which Ray does itself when the driver ends. It asks the state API, which
    fails where no dashboard runs, or where a second Ray runs on the machine, and as a detached
    actor it would outlive a driver that is killed.
    """
    from ray.train.torch import TorchTrainer

    for name in (
        "_register_sigint_handler",
        "_create_default_callbacks",
        "_initialize_and_run_controller",
    ):
        part(TorchTrainer, name)
    policy_class = _failure_policy_class()

    class Trainer(TorchTrainer):
        controller: Any = None
        """The actor that runs the training, once there is one."""

        def _register_sigint_handler(self, controller: Any) -> None:
            """Called by Ray in the main thread, before it waits for the controller."""
            self.controller = controller

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            """Called by Ray, with what the controller is made of."""
            arguments["failure_policy"] = policy_class(self.run_config.failure_config, goes_on)
            if labels and self.scaling_config.elasticity_enabled:
                policy = _scaling_policy_class()(self.scaling_config, dict(labels))
                arguments["scaling_policy"] = policy
            return super()._initialize_and_run_controller(**arguments)

        def _create_default_callbacks(self) -> list[Any]:
            """Called by Ray before it starts the controller."""
            made = super()._create_default_callbacks()
            return [one for one in made if type(one).__name__ != "PlacementGroupCleanerCallback"]

    return Trainer


def _scaling_policy_class() -> type:
    """Returns what decides, in Ray Train's controller, how many workers an elastic group has."""
    import ray
    from ray.train.v2._internal.execution import scaling_policy

    part(part(scaling_policy, "ElasticScalingPolicy"), "_count_possible_workers")

    class Policy(part(scaling_policy, "ElasticScalingPolicy")):  # type: ignore[misc]  # Ray's
        def __init__(self, config: Any, labels: dict[str, str]) -> None:
            super().__init__(config)
            self._labels = labels

        def _count_possible_workers(self, reserved_resources: Any) -> int:
            """Called by Ray with what each node, by its id, has for the training."""
            selected = {
                node["NodeID"]
                for node in ray.nodes()
                if is_selected(node.get("Labels") or {}, self._labels)
            }
            there = {node: has for node, has in reserved_resources.items() if node in selected}
            return int(super()._count_possible_workers(there))

    return Policy


def _failure_policy_class() -> type:
    """Returns what decides, in Ray Train's controller, whether workers are started again."""
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.execution import failure_handling

    decisions = part(failure_handling, "FailureDecision")

    class Policy(part(failure_handling, "DefaultFailurePolicy")):  # type: ignore[misc]  # Ray's
        def __init__(self, config: Any, goes_on: Callable[[Sequence[BaseException]], bool]) -> None:
            super().__init__(config)
            self._goes_on = goes_on

        def make_decision(self, training_failed_error: Any) -> Any:
            """Called by Ray once for every attempt that failed."""
            failed = training_failed_error
            if isinstance(failed, WorkerGroupError):
                errors = list(failed.worker_failures.values())
            elif (
                isinstance(failed, ControllerError)
                and self.failure_config.controller_failure_limit != -1
                and self._is_retryable_error(failed)
            ):
                errors = [failed.controller_failure]
            else:
                return super().make_decision(failed)
            return decisions.RETRY if self._goes_on(errors) else decisions.RAISE

    return Policy
