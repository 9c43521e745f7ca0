"""Places every stage on simulated nodes and says where each process stood: run as a program.

    python -m tests.engine.placed_stages FOLDER index|score|train|sweep ...

Nodes are told apart by their labels: an idle head, scoring on two nodes of two GPUs, training on
one of four, indexing on CPUs. GPUs are logical: Ray counts them, torch sees none.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import ray
from ray import tune
from ray.cluster_utils import Cluster
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from raygrad.config import ScoreConfig, SweepConfig, TrainConfig
from raygrad.engine import parallel
from raygrad.engine.nodes import offer_of
from raygrad.engine.placement import place_training
from raygrad.engine.score import pool
from raygrad.engine.score.task import ShardStatus, as_batch
from raygrad.engine.sweep import job as sweep_job
from raygrad.engine.train import job as train_job
from raygrad.engine.waiting import Need, wait_for
from raygrad.runs.layout import RunLayout

SHAPES = {
    "head": {"num_cpus": 0},
    "score-a": {"num_cpus": 4, "num_gpus": 2, "labels": {"raygrad": "score"}},
    "score-b": {"num_cpus": 4, "num_gpus": 2, "labels": {"raygrad": "score"}},
    "train": {"num_cpus": 6, "num_gpus": 4, "labels": {"raygrad": "train"}},
    "index": {"num_cpus": 3, "labels": {"raygrad": "index"}},
}


def here():
    """Returns what this process was given: its node's label and the GPUs that it may use."""
    context = ray.get_runtime_context()
    labels = context.get_node_labels()
    return labels.get("raygrad", "head"), len(context.get_accelerator_ids()["GPU"])


def index(folder):
    """Returns where the tasks of reading many shards stood."""
    return list(parallel.ray_map(lambda _: here(), range(6), ("raygrad=index",)))


class Scorer:
    """Stands in for the actor that scores."""

    def __init__(self, *given):
        pass

    def __call__(self, batch):
        """Returns where it stands, as the status of its shard."""
        said = json.dumps([*here(), ray.get_runtime_context().get_actor_id()])
        return as_batch([ShardStatus(str(shard), "done", error=said) for shard in batch["shard"]])


def score(folder):
    """Returns where the actors of the pool stood, each once."""
    pool.ShardScorer = Scorer
    config = ScoreConfig(nodes=("raygrad=score",), min_actors=4)
    placed = pool.scoring_placement(config)
    print(placed.line(), file=sys.stderr)
    task = SimpleNamespace(device=placed.device, cpus=placed.each["CPU"], actors_per_gpu=1)
    shards = dict.fromkeys(map(str, range(8)), 1)
    said = [s for s in pool.pool_statuses(config, task, None, shards) if s is not None]
    assert len(said) == len(shards)
    actors = {tuple(json.loads(status.error)) for status in said}
    return [place[:2] for place in actors]


def _told(folder):
    label, gpus = here()
    Path(folder, f"{ray.get_runtime_context().get_worker_id()}.json").write_text(
        json.dumps([label, gpus])
    )


def _read(folder):
    return [tuple(json.loads(path.read_text())) for path in Path(folder).glob("*.json")]


def train(folder):
    """Returns where the workers of the training stood."""
    config = TrainConfig(nodes=("raygrad=train",))
    placed = place_training(config, offer_of(config.nodes))
    print(placed.line(), file=sys.stderr)
    wait_for("train", train_job._need(placed, config), 60.0)
    train_job._train_worker = lambda arguments: _told(arguments["folder"])
    train_job.ray_private_train.trainer_class = lambda *_: DataParallelTrainer
    task = SimpleNamespace(
        folder=str(folder), inputs_digest="0" * 16, config=config, state_url=f"{folder}/train.state"
    )
    scaling = train_job._scaling(placed, config)
    train_job._trainer(task, scaling, {"folder": str(folder)}, 60.0).fit()
    return _read(folder)


def sweep(folder):
    """Returns where the trials stood."""
    config = SweepConfig(nodes=("raygrad=train",))
    placed = sweep_job.sweep_placement(config)
    print(placed.line(), file=sys.stderr)
    need = Need(placed.workers, placed.each, placed.labels)
    wait_for("sweep", need, 60.0)

    def run_trial(choice, work):
        _told(folder)
        tune.report({"row": "{}"})

    sweep_job.run_trial = run_trial
    sweep_job.SharedData = SimpleNamespace(put=lambda data: None)
    sweep_job.images_an_epoch = lambda trial: 1
    todo = [(None, "")] * placed.count
    layout = RunLayout(str(folder))
    watch = tune.Callback()
    watch.goes_on = lambda trial: False
    sweep_job._run_trials(config, TrainConfig(), None, todo, layout, placed, watch)
    return _read(folder)


def main(folder, *stages):
    """Starts the nodes, and prints where each stage's processes stood, as JSON."""
    cluster = Cluster(initialize_head=True, head_node_args=SHAPES["head"])
    try:
        for name in list(SHAPES)[1:]:
            cluster.add_node(**SHAPES[name])
        ray.init(address=cluster.address, logging_level=40, log_to_driver=False)
        found = {}
        for name in stages:
            own = Path(folder, name)
            own.mkdir()
            counts = Counter(globals()[name](own))
            found[name] = sorted([*place, count] for place, count in counts.items())
        print(json.dumps(found))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
