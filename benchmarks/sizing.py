"""What a data set asks of a cluster: GPUs, decode cores, S3 requests and bytes, hours and cost.

    python benchmarks/sizing.py

Prints the tables of cluster/README.md. A figure here is of one of three kinds, and the tables say
which: measured on CPUs in benchmarks/records/, a vendor's, or assumed. No GPU has been measured.
Every figure is a flag.
"""

import argparse
import math
import random
import statistics

from preemption import many
from torchvision.models import get_model_weights

SECONDS_PER_HOUR = 3600
BACKWARD = 3.0
"""Operations of forward and backward together, in forward passes."""


def main() -> None:
    """Prints both sizes."""
    args = parse()
    for count in args.examples:
        print_sizes(args, count)
    print_sweeps(args)


def parse() -> argparse.Namespace:
    """Returns the figures; the help says where each comes from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--examples", type=float, nargs="+", default=[1.28e6, 1e9])
    add("--networks", nargs="+", default=["resnet18", "resnet50", "vgg16"])
    add("--gpus", type=int, default=32, help="scoring nodes of one GPU (aws.yaml's bound)")
    add("--image-bytes", type=float, default=110e3, help="ImageNet's mean: 140 GB / 1.28 million")
    add("--shard-bytes", type=float, default=138e6, help="assumed: 1,250 photographs")
    add("--request-bytes", type=float, default=8 * 2**20, help="raygrad's longest range")
    add("--row-bytes", type=float, default=60, help="assumed: a row of a part, compressed")
    add("--decode-ms", type=float, default=3.5, help="measured: CPU ms, 500 x 375 to 224")
    add("--vcpus", type=int, default=16, help="vendor: g6.4xlarge")
    add("--cores-per-vcpu", type=float, default=0.6, help="assumed: two hyperthreads for 1.2 cores")
    add("--decode-threads", type=int, default=8, help="raygrad's most for an actor")
    add("--gpu-tflops", type=float, default=121, help="vendor: L4, bf16, dense")
    add("--utilisation", type=float, default=0.3, help="assumed")
    add("--norms-over-backward", type=float, default=0.88, help="measured on CPUs: l2, VGG16")
    add(
        "--network-bytes-per-s",
        type=float,
        default=1.0e9,
        help="assumed of vendor's 'up to 25 Gbit/s'",
    )
    add("--s3-requests-per-s", type=float, default=5500, help="vendor: reads a prefix")
    add("--select-us", type=float, default=0.33, help="measured: CPU us a row and draw")
    add("--lost-per-hour", type=float, default=0.1, help="assumed: spot nodes lost, each")
    add(
        "--restart-s", type=float, default=240, help="assumed: from a loss to the next node's shard"
    )
    add("--spot", type=float, default=0.60, help="assumed: $ an hour, g6.4xlarge, spot")
    add("--on-demand-gpu", type=float, default=1.15, help="list: g6.12xlarge's $4.60 / 4 GPUs")
    add("--train-vcpus", type=int, default=12, help="vendor: of g6.12xlarge, a GPU")
    add("--per-1000-reads", type=float, default=0.0004, help="vendor: S3, $")
    add("--per-1000-writes", type=float, default=0.005, help="vendor: S3, $")
    add("--sweep-networks", nargs="+", default=["alexnet", "vgg16"])
    add("--methods", type=int, default=3)
    add("--fractions", type=float, nargs="+", default=[0.1, 0.2, 0.4, 0.6, 0.8])
    add("--epochs", type=int, default=90)
    return parser.parse_args()


def flops(network: str) -> float:
    """Returns the operations of a forward pass at 224 pixels, as torchvision publishes them."""
    return 2e9 * get_model_weights(network).DEFAULT.meta["_ops"]


def rates(args: argparse.Namespace, network: str) -> dict[str, float]:
    """Returns images/s of one scoring node, by what would bound it."""
    pass_flops = flops(network) * BACKWARD * args.norms_over_backward
    return {
        "GPU": args.gpu_tflops * 1e12 * args.utilisation / pass_flops,
        "decoding": min(args.decode_threads, args.vcpus * args.cores_per_vcpu)
        * 1e3
        / args.decode_ms,
        "network": args.network_bytes_per_s / args.image_bytes,
        "S3 reads": args.s3_requests_per_s * args.request_bytes / args.image_bytes / args.gpus,
    }


def spot_factor(args: argparse.Namespace, shard_s: float, num_shards: int) -> float:
    """Returns what preemptions make of the time, simulated; long queues as one of 100 a node."""
    shards = [shard_s] * min(num_shards, 100 * args.gpus)
    life_s = SECONDS_PER_HOUR / args.lost_per_hour
    found = many(20, shards, args.gpus, life_s, args.restart_s)
    ideal_s = shard_s * math.ceil(len(shards) / args.gpus)
    return statistics.mean(one.wall_s for one in found) / ideal_s


def print_sizes(args: argparse.Namespace, count: float) -> None:
    """Prints storage, then scoring with each network, then selection."""
    total_bytes = count * args.image_bytes
    num_shards = math.ceil(total_bytes / args.shard_bytes)
    reads = total_bytes / args.request_bytes
    print(f"\n### {count:,.0f} images\n")
    print(
        f"- {total_bytes / 1e12:,.2f} TB in {num_shards:,} shards of "
        f"{args.shard_bytes / 1e6:g} MB; one pass is {reads:,.0f} reads "
        f"(${reads / 1000 * args.per_1000_reads:,.2f}); indexing and scoring are a pass each."
    )
    print(f"- The parts: {num_shards:,} writes "
          f"(${num_shards / 1000 * args.per_1000_writes:,.2f}), "
          f"{count * args.row_bytes / 1e9:,.2f} GB.")  # fmt: skip
    print(f"- Drawing one subset: {count * args.select_us / 1e6:,.1f} CPU-seconds.\n")
    print("| scored with | images/s a node: GPU | decoding | first bottleneck | hours on "
          f"{args.gpus} nodes | GPU-hours | cost |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for network in args.networks:
        found = rates(args, network)
        bound = min(found, key=found.__getitem__)
        shard_s = count / num_shards / found[bound]
        factor = spot_factor(args, shard_s, num_shards)
        waves = max(num_shards / args.gpus, 1.0)
        hours = waves * shard_s * factor / SECONDS_PER_HOUR
        print(
            f"| {network} | {found['GPU']:,.0f} | {found['decoding']:,.0f} | {bound} | "
            f"{hours:,.2f} | {hours * args.gpus:,.1f} | ${hours * args.gpus * args.spot:,.1f} |"
        )


def print_sweeps(args: argparse.Namespace) -> None:
    """Prints what one sweep takes: every network on every subset, and once on everything."""
    share = args.methods * sum(args.fractions) + 1
    trials = args.methods * len(args.fractions) + 1
    print(f"\n### One sweep\n\n{trials} retrainings a network, together {share:.1f} times the "
          f"data, {args.epochs} epochs, no early stopping.\n")  # fmt: skip
    print("| images | network | images/s a GPU: GPU | decoding | GPU-hours | cost |")
    print("|---|---|---|---|---|---|")
    decoding = args.train_vcpus * args.cores_per_vcpu * 1e3 / args.decode_ms
    for count in args.examples:
        for network in args.sweep_networks:
            gpu = args.gpu_tflops * 1e12 * args.utilisation / (flops(network) * BACKWARD)
            hours = count * args.epochs * share / min(gpu, decoding) / SECONDS_PER_HOUR
            print(
                f"| {count:,.0f} | {network} | {gpu:,.0f} | {decoding:,.0f} | {hours:,.0f} | "
                f"${hours * args.on_demand_gpu:,.0f} |"
            )


if __name__ == "__main__":
    random.seed(0)
    main()
