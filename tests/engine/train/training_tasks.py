"""Training tasks whose files all go to one folder, and images in shards to train on."""

import dataclasses
import io
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from ray.util.placement_group import placement_group_table

from raygrad.data.index import build_index, write_index
from raygrad.engine.train.job import TrainTask
from raygrad.training.study_data import StudyData, StudySource, load_study_data
from tests.data.making import example, put
from tests.engine.sweep.sweeping import make_data


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


def make_sharded(folder) -> tuple[StudyData, StudySource]:
    """The images of `make_data` in four shards: all of them in memory, and where they stream from.

    Validation examples are chosen by the hash of their key, as of any data set in shards.
    """
    data, urls = make_data(), []
    for name, split, rows in (
        ("train-0", data.train, range(7)),
        ("train-1", data.train, range(7, 190)),
        ("train-2", data.train, range(190, 300)),
        ("test-0", data.test, range(90)),
    ):
        members = []
        for row in rows:
            picture = io.BytesIO()
            Image.fromarray(split.images[row, 0]).save(picture, "PNG")
            members += example(split.keys[row], split.labels[row], "png", picture.getvalue())
        urls.append(put(folder, f"{name}.tar", members))
    index = build_index(urls[:3], urls[3:], val_fraction=0.2)
    write_index(str(folder / "data"), index)
    source = StudySource(str(folder / "data"), 3, 1, None, "", survey_url=str(folder / "survey"))
    source.surveyed()
    return load_study_data(index, 3, 1), source


@dataclass(frozen=True)
class TracedSource(StudySource):
    """Images kept on a node's disk; each time they are opened leaves an event in a folder."""

    trace: str = ""
    """The folder."""
    deaths: int = 0
    """So many processes are killed that would decode."""

    @staticmethod
    def on_disk(source: StudySource, folder: Path, **changes) -> "TracedSource":
        """Returns the images of another source, with a cache and a trace in a folder."""
        (folder / "trace").mkdir()
        here = {"cache_dir": str(folder / "cache"), "trace": str(folder / "trace")}
        return TracedSource(**{**vars(source), "survey_url": None, **here, **changes})

    @property
    def events(self) -> list[dict]:
        """What was left, the earliest first."""
        found = [json.loads(path.read_text()) for path in Path(self.trace).glob("*.json")]
        return sorted(found, key=lambda event: event["at_ns"])

    def open(self) -> StudyData:
        """Tells what it found, and opens."""
        groups = [row["state"] for row in placement_group_table().values()]
        here = list(Path(self.cache_dir).rglob("*.arrow"))
        event = {"decodes": len(here) < 3, "groups": groups.count("CREATED")}
        path, at_ns = Path(self.trace), time.time_ns()
        (path / f"{at_ns}-{os.getpid()}.json").write_text(json.dumps({**event, "at_ns": at_ns}))
        if len(list(path.iterdir())) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        # As the base, which is known again by what it holds.
        names = [field.name for field in dataclasses.fields(StudySource)]
        return StudySource(**{name: getattr(self, name) for name in names}).open()
