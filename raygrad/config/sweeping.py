"""The section sweep: how networks are retrained on the subsets."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import tyro

from raygrad.config.declaring import BASIC, EXECUTION, positive, require
from raygrad.config.nodes import check_nodes
from raygrad.config.training import DATA_WAYS

Protocol = Literal["equal_epochs", "equal_steps"]


@dataclass(frozen=True)
class SweepConfig:
    """How networks are retrained on the subsets."""

    ON_CHANGE: ClassVar[str] = "acted on"
    """More retrainings are run beside those that are there."""

    networks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--network",))] = field(
        default=(), metadata=BASIC
    )
    """The networks that are retrained, by name or as `module:callable`; none: the run's. They need
    not be the network that the scores come from."""
    protocols: tuple[Protocol, ...] = field(default=("equal_epochs",), metadata=BASIC)
    """equal_epochs: as many epochs as the full run (the paper's); equal_steps: as many updates."""
    early_termination: Literal["no", "asha"] = "no"
    """asha ends trials whose validation accuracy is clearly below the others' (asynchronous
    successive halving, over all trials together: small subsets go first). They are listed without
    a test accuracy, so a study that needs every point leaves this off."""
    max_concurrent: int = field(default=0, metadata=EXECUTION)
    """Trials at a time; 0: as many as the cluster holds."""
    workers_per_trial: int = field(default=1, metadata=EXECUTION)
    """Processes that train one trial together (DDP)."""
    cpus_per_worker: float = field(default=1.0, metadata=EXECUTION)
    """CPUs of each of them; a fraction packs several trials on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=EXECUTION)
    """Where trials train; auto takes GPUs where the cluster has one, or may grow to one."""
    gpus_per_worker: float | None = field(default=None, metadata=EXECUTION)
    """GPUs of each of them, 1 by default where trials train on GPUs; a fraction packs several
    trials of one worker on a GPU, 0 trains on the CPU."""
    nodes: tuple[str, ...] = field(default=(), metadata=EXECUTION)
    """Labels of the nodes that trials may stand on, NAME=VALUE, as Ray's label
    selectors: raygrad=train, ray.io/market-type=!spot; by default on any."""
    max_failures: int = field(default=2, metadata=EXECUTION)
    """How often in a row a trial that failed without having saved anything new is tried again
    before it is listed as failed. A lost node does not count; what fails again for certain, such
    as a recipe that diverges, is not tried again."""
    save_interval_s: float = field(default=60.0, metadata=EXECUTION)
    """A killed trial loses at most about this many seconds, and goes on; a trial that is shorter
    saves nothing. 0 saves after every epoch."""
    data: Literal["train", "auto", "memory", "disk", "stream"] = field(
        default="train", metadata=EXECUTION
    )
    """Where retrainings have their images from, see `train.data`; train: as training has them."""
    tensorboard: bool = field(default=False, metadata=EXECUTION)
    """Write every trial's epochs for TensorBoard, under `<run>/sweep/tune`."""

    def __post_init__(self) -> None:
        repeats = len(set(self.networks)) < len(self.networks)
        require(not repeats, "networks must not repeat a name", self.networks)
        positive("workers_per_trial", self.workers_per_trial)
        positive("cpus_per_worker", self.cpus_per_worker)
        self._check_gpus()
        check_nodes(self.nodes)
        require(len(self.protocols) > 0, "protocols must not be empty", self.protocols)
        known = ("equal_epochs", "equal_steps")
        for protocol in self.protocols:
            require(protocol in known, f"protocols must be of {known}", protocol)
        ways = ("train", *DATA_WAYS)
        require(self.data in ways, f"data must be of {ways}", self.data)
        require(self.max_concurrent >= 0, "max_concurrent must be at least 0", self.max_concurrent)
        for name in ("max_failures", "save_interval_s"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must be at least 0", value)

    def _check_gpus(self) -> None:
        gpus, device = self.gpus_per_worker, self.device
        if gpus is None:
            return
        require(gpus >= 0, "gpus_per_worker must be at least 0", gpus)
        whole = gpus == int(gpus)
        require(whole or gpus < 1, "gpus_per_worker must be whole where it is above 1", gpus)
        require(
            whole or self.workers_per_trial == 1,
            "gpus_per_worker must be whole where a trial has several workers, which cannot share "
            "a GPU",
            gpus,
            "Give 1, or one worker a trial.",
        )
        fits = device == "auto" or (device == "cuda") == (gpus > 0)
        require(fits, f"gpus_per_worker must be of the device, {device}", gpus, "Leave one out.")
