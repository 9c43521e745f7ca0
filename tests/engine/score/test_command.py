"""The practitioner's line: own tars, own weights, nothing prepared or trained before."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from raygrad.cli import command as cli
from raygrad.training.models import build_network
from tests.engine.score.scoring_cases import SIZE, SPEC, make_shards

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 240


def line(folder, *more, shards="own-{000..001}.tar", columns=("grad_l2_weights", "el2n")):
    """Returns the arguments of the line, with weights that no seed of ours gives."""
    weights = folder / "net.pt"
    if not weights.exists():
        network = build_network("tests.engine.score.scoring_cases:net", SPEC, seed=7)
        torch.save({"state_dict": network.state_dict()}, weights)
    return [
        "score",
        *("--data", str(folder / shards)),
        *("--network", "tests.engine.score.scoring_cases:net"),
        *("--checkpoint", str(weights)),
        *("--num-classes", "3"),
        *("--image-size", str(SIZE)),
        *("--columns", *columns),
        *("--run", str(folder / "run")),
        *more,
    ]


def table(folder):
    parts = (folder / "run/scores/tests.engine.score.scoring_cases-net").glob("part-*.parquet")
    return {row["key"]: row for part in parts for row in pq.read_table(part).to_pylist()}


def test_tars_and_a_state_dict_are_enough_and_shards_may_come_later(tmp_path, ray_session, capsys):
    make_shards(tmp_path, 2)
    assert cli.main(line(tmp_path)) == 0
    assert "24 examples scored in 2 parts" in capsys.readouterr().out
    first = table(tmp_path)
    assert len(first) == 24, "nothing is held out"
    assert set(next(iter(first.values()))) >= {"key", "shard", "label", "el2n", "prediction"}
    scores = tmp_path / "run/scores/tests.engine.score.scoring_cases-net"
    kept = {path: path.stat().st_mtime_ns for path in scores.glob("part-*.parquet")}

    make_shards(tmp_path, 1, first=2)
    assert cli.main(line(tmp_path, shards="own-{000..002}.tar")) == 0
    assert "36 examples scored in 3 parts" in capsys.readouterr().out
    assert json.loads((scores / "metrics.json").read_text())["scored_now"] == 12
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {key: row for key, row in table(tmp_path).items() if key in first} == first

    (scores / "part-own-001.parquet").unlink()
    assert cli.main(["score", "--run", str(tmp_path / "run")]) == 0, "a part that was removed"
    assert json.loads((scores / "metrics.json").read_text())["scored_now"] == 12
    assert {key: row for key, row in table(tmp_path).items() if key in first} == first

    assert cli.main(["score", "--run", str(tmp_path / "run")]) == 0
    assert cli.main(["select", str(tmp_path / "run"), "--method", "max_gradient"]) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("--num-classes", "5"), "misshapen (3.weight [3, 256] instead of [5, 256]"),
        (("--num-classes", "2"), "num_classes must count every label, got 2 for labels up to 2"),
        (("--network", "resnet18"), "missing (conv1.weight"),
        (("--network", "resnet19"), "Did you mean 'resnet1"),
        (("--columns", "grad_l2_weight"), "Did you mean 'grad_l2_weights'"),
        (("--checkpoint", "nowhere.pt"), "checkpoint must exist"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_actor(
    tmp_path, ray_session, capsys, change, text
):
    make_shards(tmp_path, 2)
    assert cli.main(line(tmp_path, *change)) == 2
    assert text in capsys.readouterr().err
    assert table(tmp_path) == {}


def test_other_shards_in_place_of_the_old_ones_are_refused(tmp_path, ray_session, capsys):
    make_shards(tmp_path, 3)
    config = line(tmp_path)
    assert cli.main(config) == 0
    assert cli.main(line(tmp_path, shards="own-{001..002}.tar")) == 2
    assert "must keep its configuration: data.tars" in capsys.readouterr().err
