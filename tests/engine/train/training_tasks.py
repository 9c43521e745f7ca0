"""Training tasks whose files all go to one folder."""

from raygrad.engine.train.job import TrainTask


def make_task(folder, config):
    folder.mkdir(exist_ok=True)
    return TrainTask(
        config=config,
        inputs_digest="0123456789abcdef",
        folder=str(folder / "ray"),
        checkpoint_url=str(folder / "best.pt"),
        metrics_url=str(folder / "metrics.json"),
        measured_url=str(folder),
    )
