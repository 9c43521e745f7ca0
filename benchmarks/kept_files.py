"""What a run folder needs to go on, without weights, images, caches and logs: kept and restored.

    config.json     the study's configuration, with paths as of its folder of work
    stages.jsonl    every completion marker, with the digest of the data
    trials.jsonl    the row of every finished trial
    journal.jsonl   when each stage was started, and what ended it
    NETWORK.tar.xz  a scoring network: its metrics, its score table, its checkpoint without weights

A checkpoint without weights says what network it was and how it saw images, which is all that a
complete score table is compared with; to score by it is refused, for its weights are missing.
"""

import io
import json
import lzma
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from raygrad.config import StudyConfig
from raygrad.config_values import to_dict
from raygrad.errors import ConfigError
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.training.checkpoints import load_checkpoint, save_checkpoint

CONFIG, STAGES = "config.json", "stages.jsonl"
TRIALS, JOURNAL = "trials.jsonl", "journal.jsonl"
DATA_STAGE = "prepare"
"""Not restored: another machine prepares the data itself, and the digest must be the same."""


def keep(run: Path, kept: Path, config: StudyConfig) -> None:
    """Writes what the run folder needs to go on; what is kept already of a network stays.

    Args:
        run: The run folder, in the folder of work.
        kept: Where it is kept.
        config: The whole study.

    Raises:
        ConfigError: A file would hold a path of this machine.
    """
    kept.mkdir(parents=True, exist_ok=True)
    root, before = str(run.parent.resolve()), _stages(kept)
    stages = {path.stem: json.loads(path.read_text()) for path in (run / "stages").glob("*.json")}
    for name in scored_networks(run):
        archive, stage = kept / f"{name}.tar.xz", f"score-{name}"
        if not archive.exists() or before.get(stage) != stages[stage]:
            _write(archive, _packed(run, name), root)
    named = json.loads(json.dumps(to_dict(config)).replace(root + "/", ""))
    place = Path(named["data"].get("data_dir") or "")
    if place.is_absolute():  # the user's own, whose name says enough
        named["data"]["data_dir"] = place.name
    _write(kept / CONFIG, (json.dumps(named, indent=1) + "\n").encode(), root)
    markers = ({"stage": name, "marker": stages[name]} for name in sorted(stages))
    _write(kept / STAGES, _lines(markers), root)
    _write(kept / TRIALS, _lines(trial_rows(run)), root)
    entries = ((path.name, json.loads(path.read_text())) for path in _files(run / "journal"))
    _write(kept / JOURNAL, _lines({"file": name, **entry} for name, entry in entries), root)


def restore(run: Path, kept: Path) -> None:
    """Adds what is kept to a run folder whose data are prepared; what is there stays.

    Raises:
        ConfigError: The data are not those that what is kept came from.
    """
    stages = _stages(kept)
    if not stages:
        return
    now = json.loads((run / "stages" / f"{DATA_STAGE}.json").read_text())["digest"]
    was = stages.pop(DATA_STAGE)["digest"]
    if now != was:
        raise ConfigError(
            f"the index of the data must have the digest that {kept} was kept with, got {now} "
            f"instead of {was}, in {run}. Give --data the same files, and another --work."
        )
    for name in (stage.removeprefix("score-") for stage in stages if stage.startswith("score-")):
        if not (run / "stages" / f"score-{name}.json").exists():
            with tarfile.open(kept / f"{name}.tar.xz") as tar:
                tar.extractall(run, filter="data")
    for row in _read_lines(kept / TRIALS):
        _add(run / "sweep" / "trials" / f"{row['trial']}.json", json.dumps(row))
    for entry in _read_lines(kept / JOURNAL):
        _add(run / "journal" / entry.pop("file"), json.dumps(entry, indent=1))
    # Last, as a marker says that all of its stage is there.
    for stage, marker in stages.items():
        _add(run / "stages" / f"{stage}.json", json.dumps(marker, indent=1))


def trial_rows(run: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's finished trials, by the trials' names."""
    return [json.loads(path.read_text()) for path in _files(run / "sweep" / "trials")]


def scored_networks(run: Path) -> list[str]:
    """Returns the scoring networks of a run whose tables are complete."""
    return [path.stem.removeprefix("score-") for path in sorted(run.glob("stages/score-*.json"))]


def _packed(run: Path, name: str) -> bytes:
    """Returns a scoring network without its weights as an archive, the same bytes every time."""
    layout, held = RunLayout(str(run)), io.BytesIO()
    light = run / f"{name}.light"
    checkpoint = load_checkpoint(layout.checkpoint(name))
    save_checkpoint(str(light), replace(checkpoint, weights={}))
    members = {layout.checkpoint(name): light, layout.metrics(name): Path(layout.metrics(name))}
    scores = Path(layout.scores(name))
    members |= {str(path): path for path in _files(scores)}
    base = Path(layout.url)
    with lzma.open(held, "wb", preset=9) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for at, path in sorted(members.items()):
            info = tarfile.TarInfo(Path(at).relative_to(base).as_posix())
            content = path.read_bytes()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    light.unlink()
    return held.getvalue()


def _write(path: Path, content: bytes, root: str) -> None:
    """Writes a file whole or not at all, unless it holds a path of this machine."""
    plain = lzma.decompress(content) if path.suffix == ".xz" else content
    if root.encode() in plain:
        raise ConfigError(
            f"what is kept must hold no path of this machine, got {root} in {path.name}. "
            "Leave out what says it."
        )
    if not path.exists() or path.read_bytes() != content:
        files.write_bytes(str(path), content)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file())


def _stages(kept: Path) -> dict[str, Any]:
    path = kept / STAGES
    lines = _read_lines(path) if path.exists() else []
    return {line["stage"]: line["marker"] for line in lines}


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _add(path: Path, text: str) -> None:
    if not path.exists():
        files.write_bytes(str(path), text.encode())
