"""What a newcomer types wrong: one line that says what must hold, and an exit status of 2."""

import sys

import pytest

from raygrad import pipeline
from raygrad.cli import command as cli
from tests.cases import make_tiny_config
from tests.pipeline.making_runs import without_ray

NETS = """
from torch import nn
def two(width, depth):
    return nn.Linear(1, 1)
def wrong(spec):
    return nn.Linear(1, 1)
def recipe():
    return 3
"""

OWN = "--image-size 8 --mean 0.5 --std 0.5"

LINES = [
    "prepare digts --run NEW",
    "prepare",
    "prepare image-folder --run NEW",
    "prepare mnist --run NEW",
    "prepare mnist --data-dir EMPTY --run NEW",
    "prepare imagenet --data-dir EMPTY --run NEW",
    "prepare digits --run NEW --val-fraction 1.5",
    "prepare digits --run NEW --shard-bytes 0",
    "prepare digits --run RUN --val-fraction 0.3",
    "index EMPTY/none-*.tar --run NEW",
    "index EMPTY/none-{0..3.tar --run NEW",
    "index --run NEW",
    "train --run NEW",
    "train --run RUN --epochs 0",
    "train --run RUN --network cnnn",
    "train --run RUN --network nets:none",
    "train --run RUN --network nets:two",
    "train --run RUN --network nets:wrong",
    "train --run RUN --network no_module:net",
    "train --run RUN --recipe mnist/cn",
    "train --run RUN --recipe nets:recipe",
    "train --run RUN --augment mixupp",
    "train --run RUN --augment shift+random_resized_crop",
    "train --run RUN --loss crossentropy",
    "train --run RUN --start-from nowhere.pt",
    "train --run RUN --device gpu",
    "train --run RUN --learning-rate fast",
    "score --run NEW",
    "score --run RUN --columns grad_l3_weights",
    "score --run RUN --columns",
    "score --run RUN --checkpoint nowhere.pt",
    f"score --run RUN --network mlp {OWN}",
    f"score --run RUN --network mlp --checkpoint nowhere.pt {OWN}",
    f"score --run RUN --network mlp --checkpoint TEXT {OWN}",
    f"score --run RUN --network mlp --fresh-weights --num-classes 3 {OWN}",
    "score --run RUN --network mlp --fresh-weights --image-size 8",
    f"score --run RUN --network nets:two --fresh-weights {OWN}",
    f"score --run RUN --network nets:wrong --fresh-weights {OWN}",
    "select NEW",
    "select RUN --method max_gradiant",
    "select RUN --keep-fraction 2",
    "select RUN --score-column loss",
    "sweep --run NEW",
    "sweep --run RUN",
    "sweep --run RUN --subsets nowhere.parquet",
    "sweep --run RUN --protocols equal_time",
    "plan --run NEW",
    "report NEW",
    "export nowhere.parquet --run RUN --out OUT",
    "run --run RUN --score.network mlp",
    "run --run RUN --sweep.networks cnnn",
    "run --run RUN --train.epoch 3",
    "nothing --run RUN",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run folder of the digits, prepared and no more."""
    config = make_tiny_config(tmp_path_factory.mktemp("wrong"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        pipeline.bind(config)
        pipeline.prepare(config)
    return config


@pytest.mark.parametrize("line", LINES)
def test_it_is_said_in_a_line_before_anything_starts(line, prepared, tmp_path, monkeypatch, capsys):
    """Nothing of it stays in the run folder, and a new one is not begun."""
    import ray

    without_ray(monkeypatch)
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("no weights")
    monkeypatch.chdir(tmp_path)
    words = {
        "RUN": prepared.run, "NEW": str(tmp_path / "new"), "EMPTY": str(tmp_path / "empty"),
        "TEXT": str(tmp_path / "text.pt"), "OUT": str(tmp_path / "out"),
    }  # fmt: skip
    for word, value in words.items():
        line = line.replace(word, value)
    try:
        status = cli.main(line.split())
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.modules.pop("nets", None)
    said = capsys.readouterr().err
    assert status == 2, said
    assert "Traceback" not in said
    if said.startswith("raygrad: "):
        assert len(said.splitlines()) == 1
        assert said.rstrip().endswith((".", "?", "'", ")")), "a sentence"
    assert pipeline.stored_config(prepared.run) == prepared
    assert pipeline.stored_config(str(tmp_path / "new")) is None
