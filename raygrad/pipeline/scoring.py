"""The stage score: the table of scores of a network."""

import time
from typing import Any

from raygrad.config import StudyConfig
from raygrad.data import storage
from raygrad.data.layout import RunLayout
from raygrad.data.manifest import digest, read_json
from raygrad.data.shards import DATASET_FILE
from raygrad.engine import score as score_engine
from raygrad.engine.session import ensure_ray
from raygrad.pipeline.stages import facts_of, stage, transform_of
from raygrad.scoring import check_columns


def score(config: StudyConfig) -> dict[str, Any]:
    """Scores every training example with the trained network; returns the table's facts."""
    layout, network = RunLayout(config.run), config.train.network
    check_columns(config.score.columns)
    provenance = {
        "checkpoint": facts_of(layout, f"train-{network}")["digest"],
        "data": facts_of(layout, "prepare")["digest"],
        "columns": ",".join(config.score.columns),
        "dtype": "float32",
    }

    def do() -> dict[str, Any]:
        ensure_ray()
        facts = read_json(storage.join(layout.data, DATASET_FILE))
        task = score_engine.ScoreTask(
            data_url=layout.data,
            checkpoint_url=layout.checkpoint(network),
            out_url=layout.scores(network),
            channels=facts["channels"],
            transform=transform_of(facts),
            columns=config.score.columns,
            batch_size=config.score.batch_size,
            provenance=provenance,
            attempts_url=storage.join(layout.scores(network), "attempts", str(time.time_ns())),
        )
        return {**score_engine.score(config.score, task), "digest": digest(provenance)}

    return stage(layout, f"score-{network}", digest(provenance), do)
