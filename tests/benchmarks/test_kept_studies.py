"""A study of many sittings comes out as one that nothing disturbed, on whatever machines."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import kept_files
from benchmarks.kept_plan import Costs, Step, chosen, name_of, pending, summary, trial_names
from benchmarks.kept_table import CIFAR10, DIGITS, MNIST, STUDIES
from raygrad.config import DataConfig
from raygrad.errors import ConfigError
from raygrad.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from raygrad.training.models import ImageSpec, build_network
from raygrad.training.preprocess import Normalize

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, threading, time
from dataclasses import replace
from pathlib import Path

from benchmarks import kept_studies

whole = kept_studies.STUDIES["digits"]
kept_studies.STUDIES["digits"] = replace(whole, passes=whole.passes[:1])

class AtRow(threading.Timer):
    '''Time is up once so many trials are finished.'''

    def run(self):
        folder = Path(sys.argv[3], "digits", "sweep", "trials")
        while len(list(folder.glob("*.json"))) < 2:
            time.sleep(0.02)
        self.function()

if sys.argv.pop(1) == "at-row":
    kept_studies.threading.Timer = AtRow
sys.exit(kept_studies.main(sys.argv[1:]))
"""
TIMES = {"train_time_s", "loop_time_s"}


def sitting(work, kept, *flags, until="time"):
    command = [sys.executable, "-c", PROGRAM, until, "digits", "--work", str(work)]
    return subprocess.run(
        [*command, "--kept", str(kept), *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def rows_of(kept):
    return [json.loads(line) for line in (kept / "trials.jsonl").read_text().splitlines()]


def tables_of(kept):
    """Returns the parts of every score table that is kept."""
    found = {}
    for path in kept.glob("*.tar.xz"):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if "/part-" in member.name:
                    content = io.BytesIO(tar.extractfile(member).read())
                    found[member.name] = pq.read_table(content)
    return found


@pytest.mark.long(seconds=180)
@pytest.mark.timeout(1800)
def test_a_study_whose_machine_is_lost_goes_on_to_the_same_results(tmp_path):
    work, undisturbed, kept = (tmp_path / name for name in ("work", "undisturbed", "kept"))
    done = sitting(tmp_path / "other", undisturbed)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 trials and 2 of 2 scoring networks are done" in done.stdout

    stopped = sitting(work, kept, until="at-row")
    assert stopped.returncode == 3, stopped.stderr
    first = rows_of(kept)
    assert 2 <= len(first) < 6
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    shutil.rmtree(work)

    too_short = sitting(work, kept, "--minutes", "0.01")
    assert too_short.returncode == 3, too_short.stderr
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    shutil.rmtree(work)

    done = sitting(work, kept)
    assert done.returncode == 0, done.stderr
    rows, expected = rows_of(kept), rows_of(undisturbed)
    assert all(row in rows for row in first), "what was trained is not trained again"
    assert [{k: v for k, v in row.items() if k not in TIMES} for row in rows] == [
        {k: v for k, v in row.items() if k not in TIMES} for row in expected
    ]
    tables, others = tables_of(kept), tables_of(undisturbed)
    assert tables.keys() == others.keys()
    assert len(tables) == 2
    assert all(tables[name].equals(others[name]) for name in tables)
    stages = [json.loads(line)["stage"] for line in (kept / "journal.jsonl").open()]
    assert stages.count("train-linear") == stages.count("score-linear") == 1
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in kept.iterdir())

    again = sitting(tmp_path / "third", kept)
    assert again.returncode == 0, again.stderr
    table = pq.read_table(tmp_path / "third" / "digits" / "sweep" / "results.parquet")
    assert table.num_rows == 6, "what is complete can be reported anywhere"


def finished(names, minutes=1.0):
    return [
        {
            "score_seed": seed,
            "score_network": scored,
            "network": network,
            "method": method,
            "keep_fraction": share,
            "train_time_s": 60 * minutes * share,
        }
        for seed, scored, network, method, share in names
    ]


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_a_share_is_finished_by_all_replicates_before_the_next_begins(study):
    rows, scored, order = [], set(), []
    while steps := pending(study, rows, scored):
        step = steps[0]
        share = step.keep_fraction
        order.append((bool(step.methods), share < 1, share if step.methods else 0, step.seed))
        if not step.methods:
            is_own = step.seed == study.recipe.seed
            scored.add(step.part.scored if is_own else f"{step.part.scored}-seed{step.seed}")
            continue
        assert len(step.networks) == len(set(step.networks))
        names = trial_names(study, step.part, step.seed)
        now = [n for n in names if n[2] in step.networks and n[4] == step.keep_fraction]
        rows += finished(n for n in now if n[3] in step.methods)
    assert [entry[:3] for entry in order] == sorted(entry[:3] for entry in order)
    names = [
        name for seed in study.seeds for p in study.passes for name in trial_names(study, p, seed)
    ]
    assert len(names) == len(set(names)) == len(rows)
    assert set(map(name_of, rows)) == set(names)


def test_the_studies_have_as_many_trials_as_their_methods_and_shares():
    (only,) = CIFAR10.passes
    assert len(trial_names(CIFAR10, only, 0)) == 4 * 4 + 1
    cnn, mlp = MNIST.passes
    assert len(trial_names(MNIST, cnn, 0)) == 3 * (4 * 7 + 1)
    assert len(trial_names(MNIST, mlp, 0)) == 3 * 7, "random subsets are the first pass's"


def test_a_step_that_does_not_fit_gives_way_and_a_sitting_does_something():
    (only,) = CIFAR10.passes
    costs = Costs(CIFAR10, finished([(0, None, "airbench94", "random", 1.0)], 40), num_cores=2)
    large = Step(only, 0, ("airbench94",), 0.8, ("random", "max_gradient"))
    small = Step(only, 0, ("airbench94",), 0.1, ("random", "max_gradient"))
    assert chosen([large, small], costs, 100, did_any=True) == large
    assert chosen([large, small], costs, 50, did_any=True) == replace(large, methods=("random",))
    assert chosen([large, small], costs, 20, did_any=True) == small
    assert chosen([large, small], costs, 3, did_any=True) is None
    assert chosen([large, small], costs, 3, did_any=False) == replace(large, methods=("random",))
    assert chosen([], costs, 100, did_any=False) is None


def test_networks_that_lack_the_same_methods_are_trained_beside_each_other():
    scored = {"cnn", "mlp"}
    first, *_ = pending(MNIST, [], scored)
    rows = finished([])
    steps = [step for step in pending(MNIST, rows, scored) if step.seed == 0 and step.methods]
    assert (steps[0].networks, steps[0].methods) == (("cnn", "mlp", "linear"), ("random",))
    assert first.networks == ("cnn",)
    done = finished(
        n for n in trial_names(MNIST, MNIST.passes[0], 0) if n[2] == "mlp" and n[4] == 1
    )
    steps = [step for step in pending(MNIST, done, scored) if step.seed == 0 and step.methods]
    assert steps[0].networks == ("cnn", "linear")
    costs = Costs(MNIST, [], num_cores=2)
    whole = Step(MNIST.passes[0], 0, ("cnn", "mlp", "linear"), 1.0, ("random",))
    assert costs.of_step(whole) == 14.0, "the two others fit beside the first"
    assert costs.fitting(whole, 10) == replace(whole, networks=("mlp",))
    assert costs.fitting(whole, 3) is None


def test_minutes_that_are_left_are_of_what_trials_took():
    (only,) = CIFAR10.passes
    rows = finished(trial_names(CIFAR10, only, 0), minutes=20)
    line = summary(CIFAR10, rows, {"airbench94"}, Costs(CIFAR10, rows, num_cores=2))
    assert "17 of 51 trials and 1 of 3 scoring networks are done" in line
    left = 2 * 20 * (4 * (0.1 + 0.3 + 0.5 + 0.8) + 1) + 2 * 20 * 1.25
    assert f"about {left:.0f} minutes are left, by what 17 trials took" in line
    four = Costs(CIFAR10, rows, num_cores=4)
    assert four.of_step(Step(only, 1, ("airbench94",), 0.5, ("a", "b", "c"))) == 2 * 0.5 * 20


def test_what_a_share_takes_is_on_the_line_between_those_that_are_known():
    name = (0, None, "cnn", "random")
    rows = [*finished([(*name, 1.0)], 20.0), *finished([(*name, 0.01)], 100.0)]  # a minute of 1%
    costs = Costs(MNIST, rows, num_cores=2)
    assert costs.minutes("cnn", 0.01) == 1.0
    assert costs.minutes("cnn", 0.505) == pytest.approx(10.5)
    assert costs.minutes("cnn", 0.005) == pytest.approx(0.5)
    assert costs.minutes("mlp", 0.5) == 2.0


def scored_run(tmp_path):
    """Returns a run folder with a scoring network, as far as keeping asks for it."""
    run = tmp_path / "work" / "digits"
    spec = ImageSpec(1, 8, 8, 10)
    weights = build_network("linear", spec, 0).state_dict()
    save_checkpoint(
        str(run / "train" / "linear" / "best.pt"),
        Checkpoint("linear", spec, Normalize((0.3,), (0.2,)), weights, "focal=2"),
    )
    for name, text in {
        "train/linear/metrics.json": "{}",
        "scores/linear/_manifest.json": "{}",
        "stages/prepare.json": '{"digest": "one"}',
        "stages/score-linear.json": '{"digest": "two"}',
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    return run


@pytest.mark.parametrize("place", ["work", "elsewhere"])
def test_what_is_kept_says_no_path_of_a_machine(tmp_path, place):
    run, kept = scored_run(tmp_path), tmp_path / "kept"
    data = DataConfig("mnist", data_dir=str(tmp_path / place / "mnist"))
    kept_files.keep(run, kept, DIGITS.config(run, data))
    for path in kept.glob("*.json*"):
        assert str(tmp_path) not in path.read_text()
    assert json.loads((kept / "config.json").read_text())["data"]["data_dir"] == "mnist"


def test_a_kept_network_has_no_weights_and_cannot_score(tmp_path):
    run, kept, again = scored_run(tmp_path), tmp_path / "kept", tmp_path / "again" / "digits"
    config = DIGITS.config(run, DIGITS.data(None, run.parent))
    kept_files.keep(run, kept, config)
    (again / "stages").mkdir(parents=True)
    (again / "stages" / "prepare.json").write_text('{"digest": "one"}')
    kept_files.restore(again, kept)
    found = load_checkpoint(str(again / "train" / "linear" / "best.pt"))
    was = load_checkpoint(str(run / "train" / "linear" / "best.pt"))
    assert found == replace(was, weights={})
    with pytest.raises(ConfigError, match="must hold the weights of 'linear'"):
        found.build()
    assert kept_files.scored_networks(again) == ["linear"]


def test_other_data_than_what_was_kept_came_from_are_refused(tmp_path):
    run, kept = scored_run(tmp_path), tmp_path / "kept"
    kept_files.keep(run, kept, DIGITS.config(run, DIGITS.data(None, run.parent)))
    (run / "stages" / "prepare.json").write_text('{"digest": "another"}')
    with pytest.raises(ConfigError, match="got another instead of one"):
        kept_files.restore(run, kept)


def test_no_path_of_a_machine_is_kept(tmp_path):
    run, kept = scored_run(tmp_path), tmp_path / "kept"
    config = DIGITS.config(
        run, replace(DIGITS.data(None, run.parent), data_dir=f"{run.parent}/images")
    )
    kept_files.keep(run, kept, config)
    found = json.loads((kept / "config.json").read_text())
    assert (found["run"], found["data"]["data_dir"]) == ("digits", "images")
    (run / "stages" / "train-linear.json").write_text(json.dumps({"at": str(run)}))
    with pytest.raises(ConfigError, match="no path of this machine"):
        kept_files.keep(run, kept, config)
