"""Where each stage stands: on which device, how many processes, with what each, and why.

One policy for every stage, decided from the shapes of the nodes alone: ``auto`` takes GPUs where a
node that the stage may stand on has one, or will have one when the cluster has grown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raygrad.config import ScoreConfig, SweepConfig, TrainConfig
from raygrad.engine.nodes import Offer, Resources, held_by, kind_of
from raygrad.engine.sweep.packing import TrialNeeds, trials_at_a_time
from raygrad.errors import ResourceError

Device = Literal["cpu", "cuda"]

CPUS_PER_ACTOR = 0.9
"""A pool that takes every CPU hangs as soon as another operator needs one."""

_WORKERS_ON_CPUS = 2
"""Training workers where nothing is said and there is no GPU."""
_MOST_DECODING = 8
"""More threads of one actor were not measured to decode faster."""
_KINDS_NAMED = 3


@dataclass(frozen=True)
class Placement:
    """What was decided for a stage, before it starts."""

    stage: str
    """train, score or sweep."""
    device: Device
    """Where its networks run."""
    kind: str
    """What it places: worker, actor or trial."""
    count: int
    """How many of them at a time."""
    each: Resources
    """What each process takes, as Ray names it."""
    offer: Offer
    """The nodes that it may stand on."""
    asked: int = 0
    """How many were asked for; 0 for as many as there are."""
    workers: int = 1
    """Processes of each, of a trial."""
    threads: int = 1
    """Threads of each that decode, of an actor."""
    notes: tuple[str, ...] = field(default=())
    """What else was decided for the user."""

    @property
    def labels(self) -> dict[str, str]:
        """The label selector of every process."""
        return dict(self.offer.labels or {})

    def line(self, count: int | None = None) -> str:
        """Returns the decision as a line: what, with what each, on which nodes.

        Args:
            count: How many there are, where the work is for fewer.
        """
        count = self.count if count is None else count
        instead = f" instead of {self.asked}" if self.asked > self.count >= count else ""
        each = " and ".join(
            f"{self.each[name]:.3g} {name}" for name in ("GPU", "CPU") if self.each.get(name)
        )
        of = f"{self.workers} workers, {each} each" if self.workers > 1 else each
        said = f"{self.stage}: {_counted(count, self.kind)}{instead} on {self.device}, {of}"
        holding = [node for node in self.offer.living if held_by(node, self.each)]
        coming = [node for node in self.offer.promised if held_by(node, self.each)]
        there = _kinds(holding) if holding else "no node yet"
        more = f", may grow by {_kinds(coming)}" if coming else ""
        notes = "".join(f"; {note}" for note in self.notes)
        each_word = " each" if self.workers == 1 else ""
        return f"{said}{each_word}: {there}{more}{self.offer.where}{notes}"


def _counted(count: int, one: str) -> str:
    return f"{count} {one}{'s' * (count != 1)}"


def _kinds(nodes: Sequence[Resources]) -> str:
    counts = Counter(kind_of(node) for node in nodes).most_common()
    named = [
        f"{_counted(count, 'node')} of {f'{gpus:g} GPU, ' if gpus else ''}{cpus:g} CPU"
        for (cpus, gpus), count in counts[:_KINDS_NAMED]
    ]
    return " and ".join(named) + (" and others" if len(counts) > _KINDS_NAMED else "")


def _device(
    stage: str, asked: str, offer: Offer, each: Resources
) -> tuple[Device, tuple[str, ...]]:
    """Returns the device of a stage, and what is to be said of it.

    Args:
        stage: Its name.
        asked: auto, cpu or cuda.
        offer: Where it may stand.
        each: What a process on a GPU takes.

    Raises:
        ResourceError: There is no GPU where one is asked for.
    """
    gpus = offer.total("GPU")
    if asked == "cuda" and gpus == 0:
        raise ResourceError(
            f"{stage} on device cuda needs a GPU, got a cluster without one{offer.where}. "
            "Set device to cpu or auto."
        )
    if asked == "cpu" or gpus == 0:
        return "cpu", ()
    if asked == "auto" and offer.room(each) == 0:
        lacking = f"{gpus:g} GPU idle: no node has {each['CPU']:g} CPU beside {each['GPU']:g} GPU"
        return "cpu", (lacking,)
    return "cuda", ()


def place_training(config: TrainConfig, offer: Offer) -> Placement:
    """Decides for training: a worker a GPU, on as many GPUs as are there unless a number is named.

    Nodes that an autoscaler may add are taken into account where a number is named; where none is
    named they count only while no GPU is there, and then one of them: a batch is of a fixed size,
    so that training on all that could come is seldom meant.

    Raises:
        ResourceError: Not one worker fits.
    """
    on_gpu = {"CPU": float(config.cpus_per_worker), "GPU": 1.0}
    device, notes = _device("train", config.device, offer, on_gpu)
    each = on_gpu if device == "cuda" else {"CPU": on_gpu["CPU"]}
    room = offer.room(each)
    if room < 1:
        largest = max((node.get("CPU", 0.0) for node in offer.nodes), default=0.0)
        raise ResourceError(
            f"training workers need at least {on_gpu['CPU']:g} CPU"
            f"{' beside a GPU' if device == 'cuda' else ''}, got {offer.total('CPU'):g} CPU, "
            f"{largest:g} on the largest node{offer.where}. Start Ray with more CPUs "
            "(`ray start --num-cpus`), lower --cpus-per-worker, or join a larger cluster."
        )
    there = sum(held_by(node, each) for node in offer.living)
    soon = max((held_by(node, each) for node in offer.promised), default=0)
    default = (there or soon) if device == "cuda" else _WORKERS_ON_CPUS
    asked = config.num_workers or (min(default, config.batch_size))
    least = max(min(asked, room), min(config.min_workers, room))
    return Placement("train", device, "worker", least, each, offer, asked, notes=notes)


def place_scoring(config: ScoreConfig, offer: Offer) -> Placement:
    """Decides for scoring: an actor a GPU, with its share of the CPUs of the node it stands on.

    All actors of a pool take the same, so the share is that of the GPU node which has fewest CPUs a
    GPU: then every GPU gets its actor, and none asks for more than its node has.

    Raises:
        ResourceError: Not one actor fits.
    """
    shares = [
        node.get("CPU", 0.0) / (node["GPU"] * config.actors_per_gpu)
        for node in offer.nodes
        if node.get("GPU", 0.0) >= 1 and node.get("CPU", 0.0) > 0
    ]
    share = min(shares, default=1.0)
    threads = config.decode_threads or max(1, min(_MOST_DECODING, int(share)))
    cpus = CPUS_PER_ACTOR * (threads if config.decode_threads else min(threads, share))
    on_gpu = {"CPU": cpus, "GPU": 1 / config.actors_per_gpu}
    device, notes = _device("score", config.device, offer, on_gpu)
    if device == "cpu":
        threads = config.decode_threads or 1
    each = on_gpu if device == "cuda" else {"CPU": CPUS_PER_ACTOR * threads}
    room = offer.room(each)
    if room < 1:
        largest = max((node.get("CPU", 0.0) for node in offer.nodes), default=0.0)
        beside = " beside a GPU" if device == "cuda" else ""
        raise ResourceError(
            f"scoring actors need at least {each['CPU']:g} CPU{beside}, got "
            f"{offer.total('CPU'):g} CPU, {largest:g} on the largest node{offer.where}. "
            "Lower --decode-threads, start Ray with more CPUs, or join a larger cluster."
        )
    return Placement("score", device, "actor", room, each, offer, threads=threads, notes=notes)


def place_sweep(config: SweepConfig, offer: Offer) -> Placement:
    """Decides for a sweep: a GPU a worker of a trial, as many trials as the cluster holds.

    Raises:
        ResourceError: Not one trial fits.
    """
    asked = config.device
    if config.gpus_per_worker is not None and asked == "auto":
        asked = "cuda" if config.gpus_per_worker > 0 else "cpu"
    gpus = 1.0 if config.gpus_per_worker is None else config.gpus_per_worker
    cpus = config.cpus_per_worker
    # A number of GPUs that was named, and that no node has, is refused by the sum below.
    named = "cuda" if config.gpus_per_worker else ""
    device, notes = (
        ("cuda", ()) if named else _device("sweep", asked, offer, {"CPU": cpus, "GPU": gpus})
    )
    needs = TrialNeeds(config.workers_per_trial, cpus, gpus if device == "cuda" else 0.0)
    count = trials_at_a_time(needs, offer.living, config.max_concurrent, offer.promised)
    return Placement(
        "sweep",
        device,
        "trial",
        count,
        needs.bundle,
        offer,
        config.max_concurrent,
        needs.num_workers,
        notes=notes,
    )


def trial_needs(placement: Placement) -> TrialNeeds:
    """Returns what a trial takes, as it was decided."""
    each: Mapping[str, float] = placement.each
    return TrialNeeds(placement.workers, each.get("CPU", 0.0), each.get("GPU", 0.0))
