"""What raygrad's training loop costs beside a bare PyTorch loop, and what measuring costs.

Every round trains the same number of images in each way, in turn: a bare loop and raygrad's with
all threads; raygrad's in two processes of half the threads each, joined by DDP over gloo; raygrad's
with the training dynamics, and with augmentation. Then the probe is set against the plain forward
and backward passes of its examples. Images are random bytes: what they show changes no rate.

    python benchmarks/training.py --networks cnn cnn5 --rounds 13

With `--streamed FOLDER ...`, on disk or S3, the streamed loop alone is measured; see
`streamed_loop.py`.

    python benchmarks/training.py --threads 1 --streamed DIR s3://bucket/folder --images 1024
"""

import argparse
import dataclasses
import multiprocessing
import multiprocessing.connection
import socket
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from bare_loop import BareLoop
from interleaved import print_rates, time_interleaved
from recording import Record, recorded
from streamed_loop import measure_streamed
from torch.nn.parallel import DistributedDataParallel

from raygrad.config import TrainConfig
from raygrad.data.streaming import GROUP_BYTES
from raygrad.training.dynamics import Dynamics
from raygrad.training.examples import Examples
from raygrad.training.loop import TrainingLoop
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.observers import Observer
from raygrad.training.preprocess import Normalize
from raygrad.training.probe import Probe
from raygrad.training.recipes import recipe

CASES = {
    "cnn": (ImageSpec(1, 28, 28, 10), recipe("mnist", "cnn")),
    "cnn5": (ImageSpec(3, 32, 32, 10), recipe("cifar10", "cnn5")),
}
"""Images and recipe by network."""
PROBE_SIZE = 512


def random_examples(spec: ImageSpec, count: int) -> Examples:
    """Returns images of random bytes with random labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, spec.channels, spec.height, spec.width)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Examples(images, torch.randint(0, spec.num_classes, (count,), generator=generator))


class Rounds:
    """A raygrad training that is taken on by an epoch at a time.

    Args:
        name: The network.
        num_images: Images of an epoch.
        augmented: Whether images are varied as the recipe says.
        with_dynamics: Whether every example is followed.
        rounds: How many epochs there will be.
    """

    def __init__(
        self, name: str, num_images: int, rounds: int, augmented: bool, with_dynamics: bool
    ) -> None:
        spec, config = CASES[name]
        config = prepared(config, rounds)
        if not augmented:
            config = dataclasses.replace(config, augment="none")
        train = random_examples(spec, num_images)
        network = build_network(name, spec, 0)
        if config.channels_last:
            network.to(memory_format=torch.channels_last)
        observers: list[Observer] = []
        self.dynamics_s = 0.0
        if with_dynamics:
            observers.append(self._timed(Dynamics(len(train), torch.device("cpu"))))
        self._loop = TrainingLoop(
            network,
            config,
            Normalize((0.5,) * spec.channels, (0.25,) * spec.channels),
            train,
            Examples(train.images[:1], train.labels[:1]),
            order_seed=0,
            ddp=DistributedDataParallel(network) if dist.is_initialized() else None,
            observers=observers,
        )

    def __call__(self) -> None:
        """Trains for one epoch."""
        self._loop._run_epoch(None)

    def _timed(self, dynamics: Dynamics) -> Dynamics:
        """Adds what the dynamics take to `dynamics_s`."""

        def timed(method: Callable[..., None]) -> Callable[..., None]:
            def call(*args: object) -> None:
                begun_s = time.perf_counter()
                method(*args)
                self.dynamics_s += time.perf_counter() - begun_s

            return call

        dynamics.on_batch = timed(dynamics.on_batch)  # type: ignore[method-assign]  # timed in place
        dynamics.after_epoch = timed(dynamics.after_epoch)  # type: ignore[method-assign]  # timed in place
        return dynamics


def prepared(config: TrainConfig, rounds: int) -> TrainConfig:
    """Returns a recipe that random images cannot make diverge, for so many rounds."""
    return dataclasses.replace(
        config, epochs=rounds + 1, patience=rounds + 1, learning_rate=1e-4, lr_decay_epochs=()
    )


def rank_main(
    rank: int, port: int, threads: int, pipe: multiprocessing.connection.Connection, options: tuple
) -> None:
    """A process of a DDP group: trains an epoch whenever it is told to."""
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    run = Rounds(*options, augmented=False, with_dynamics=False)
    pipe.send("ready")
    while pipe.recv():
        run()
        pipe.send("done")
    dist.destroy_process_group()


class TwoRanks:
    """Two processes that train together, and sleep in between.

    Args:
        threads: Threads of each.
        *options: What `Rounds` is given.
    """

    def __init__(self, threads: int, *options: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for rank in range(2):
            mine, theirs = context.Pipe()
            arguments = (rank, port, threads, theirs, options)
            self._processes.append(context.Process(target=rank_main, args=arguments))
            self._processes[-1].start()
            self._pipes.append(mine)
        self._receive()

    def __call__(self) -> None:
        """Trains for one epoch."""
        for pipe in self._pipes:
            pipe.send(True)
        self._receive()

    def end(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.send(False)
        for process in self._processes:
            process.join()

    def _receive(self) -> None:
        for pipe in self._pipes:
            pipe.recv()


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure_loops(
    name: str, num_images: int, rounds: int, threads: int, clock: str, record: Record
) -> None:
    """Prints and records the rates of all ways to train, against the bare loop and raygrad's.

    The two ranks are processes of their own, whose CPU time is not this one's: by CPU time they
    are left out.
    """
    spec, config = CASES[name]
    train = random_examples(spec, num_images)
    normalize = Normalize((0.5,) * spec.channels, (0.25,) * spec.channels)
    bare = BareLoop(
        build_network(name, spec, 0),
        prepared(config, rounds),
        normalize,
        train.images,
        train.labels,
    )
    options = (name, num_images, rounds)
    two = None if clock == "cpu" else TwoRanks(max(1, threads // 2), *options)
    followed = Rounds(*options, augmented=False, with_dynamics=True)
    ways: dict[str, Callable[[], object]] = {
        "bare loop": bare.epoch,
        "raygrad": Rounds(*options, augmented=False, with_dynamics=False),
        "raygrad with dynamics": followed,
        "raygrad with augmentation": Rounds(*options, augmented=True, with_dynamics=False),
    }
    if two is not None:
        ways["raygrad, two ranks"] = two
    try:
        seconds = time_interleaved(ways, rounds, CLOCKS[clock])
    finally:
        if two is not None:
            two.end()
    layout = "channels last" if config.channels_last else "channels first"
    print(f"\n{name}, batch {config.batch_size}, {layout}, {config.numerics}")
    record.add(network=name, images=num_images, seconds=seconds, dynamics_s=followed.dynamics_s)
    for against in ("bare loop", "raygrad"):
        print_rates(seconds, num_images, "images", against)
    if clock == "wall":
        # Of the timed rounds and the one before them; far below the noise of whole rounds.
        share = followed.dynamics_s / sum(seconds["raygrad with dynamics"]) * rounds / (rounds + 1)
        print(f"dynamics: {share:.2%} of the time of the epochs that they follow")


def measure_probe(name: str, rounds: int, clock: str, record: Record) -> None:
    """Prints and records what the probe takes, as a multiple of its examples' plain passes."""
    spec, config = CASES[name]
    train = random_examples(spec, 4 * PROBE_SIZE)
    normalize = Normalize((0.5,) * spec.channels, (0.25,) * spec.channels)
    network = build_network(name, spec, 0).eval()
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    probe = Probe(train, normalize, PROBE_SIZE, 0)
    at = torch.from_numpy(probe.positions)
    parameters = list(network.parameters())

    def passes(batch_size: int) -> None:
        for part in at.split(batch_size):
            logits = network(normalize(train.images[part]))
            torch.autograd.grad(F.cross_entropy(logits, train.labels[part]), parameters)

    seconds = time_interleaved(
        {
            f"passes in batches of {config.batch_size}": lambda: passes(config.batch_size),
            "passes in batches of 256": lambda: passes(256),
            "probe": lambda: probe.after_epoch(1, network),
        },
        rounds,
        CLOCKS[clock],
    )
    print(f"\n{name}, probe of {PROBE_SIZE} examples")
    record.add(network=name, examples=PROBE_SIZE, seconds=seconds)
    print_rates(seconds, PROBE_SIZE, "images", f"passes in batches of {config.batch_size}")


def main() -> None:
    """Parses the flags and prints tables for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, default=2048, help="of a round, at most")
    parser.add_argument("--rounds", type=int, default=13)
    parser.add_argument("--probe-rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--streamed", nargs="+", metavar="FOLDER", default=[])
    parser.add_argument("--streamed-network", default="cnn5", help="what is trained on streams")
    parser.add_argument("--streamed-size", type=int, default=64, help="pixels of its images")
    parser.add_argument("--streamed-steps", type=int, default=12, help="of a round")
    parser.add_argument(
        "--streamed-held", type=int, default=GROUP_BYTES >> 20, metavar="MIB",
        help="encoded images of a subset that are held; a smaller one is read once for all epochs",
    )  # fmt: skip
    parts = ["loop", "subset"]
    parser.add_argument("--streamed-parts", nargs="+", choices=parts, default=parts)
    args, record = recorded(parser, "The training loop costs what a bare PyTorch loop costs.")
    torch.set_num_threads(args.threads)
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {args.threads} threads, {capability}, {args.clock} time")
    begun_s = time.perf_counter()
    if args.streamed:
        measure_streamed(
            args.streamed, args.images, args.streamed_size, args.streamed_network,
            args.streamed_steps, args.rounds, args.clock, args.streamed_parts,
            args.streamed_held << 20, record,
        )  # fmt: skip
        args.networks = []
    for name in args.networks:
        images = args.images // 2 if name == "cnn5" else args.images  # as long a round
        measure_loops(name, images, args.rounds, args.threads, args.clock, record)
        measure_probe(name, args.probe_rounds, args.clock, record)
    print(f"\n{time.perf_counter() - begun_s:.0f} s in all")


if __name__ == "__main__":
    main()
