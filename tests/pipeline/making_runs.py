"""Run folders made in this process, without Ray."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from raygrad.config import ScoreConfig
from raygrad.engine.nodes import Offer
from raygrad.engine.placement import place_scoring
from raygrad.engine.score import job
from raygrad.engine.score.actor import ShardWork
from raygrad.engine.score.board import BoardState
from raygrad.pipeline import making_features, preparing, scoring


def without_ray(monkeypatch):
    """Lets the stages prepare and score work in this process."""
    for module in (preparing, scoring, making_features):
        monkeypatch.setattr(module, "ensure_ray", lambda: None)
    for module in (preparing, job):
        monkeypatch.setattr(module, "wait_for", lambda *needed: None)
    monkeypatch.setattr(preparing.parallel, "ray_map", lambda do, items, **_: map(do, items))
    placed = place_scoring(ScoreConfig(device="cpu"), Offer([{"CPU": 2.0}]))
    monkeypatch.setattr(scoring, "scoring_placement", lambda config: placed)
    monkeypatch.setattr(job, "pool_statuses", _scored)
    monkeypatch.setattr(job, "start_board", _board)
    monkeypatch.setattr(job.ray, "get", lambda value: value)


def _scored(config, task, board, shards, aside):
    """What the pool of actors gives back."""
    work = ShardWork(task)
    for shard in shards:
        yield work.score(shard, lambda *told: None)


def _board(*_):
    state = BoardState(done=0, actors=1, retries=0, idle_s=0.0)
    return SimpleNamespace(read=SimpleNamespace(remote=lambda: state))


def class_folders(root, seed, each, side=16):
    """Writes JPEGs of two classes, `each` a class in train and in val."""
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for at in range(each):
                pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{at}.jpg")
    return root
