"""The command line: help, exit statuses, one clear line for wrong input."""

import dataclasses
import re
import subprocess
import sys
import tarfile

import pyarrow.parquet as pq
import pytest

import raygrad
from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.errors import IncompleteError, RaygradError
from raygrad.training.recipes import recipe
from tests.cases import make_tiny_config

STAGES = ["prepare", "index", "train", "score", "select", "sweep", "report", "export", "run"]


def status_of(*args):
    """The exit status, also where the parser of flags ends the process itself."""
    try:
        return cli.main(list(args))
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help(stage, capsys):
    assert status_of(stage, "--help") == 0
    assert f"usage: raygrad {stage}" in capsys.readouterr().out


def test_the_command_lists_its_stages(capsys):
    assert status_of("--help") == 0
    out = capsys.readouterr().out
    assert [stage for stage in STAGES if not re.search(rf"\b{stage}\b", out)] == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["run", "--run", "RUN", "--select.methods", "max_gradiant"], "mean 'max_gradient'"),
        (["run", "--run", "RUN", "--select.keep-fractions", "1.5"], r"must be in \(0, 1\]"),
        (["run", "--run", "RUN", "--score.columns", "grad_l7_weights"], "must be one of"),
        (["select", "RUN", "--method", "random"], "run folder must exist"),
        (["sweep", "--run", "RUN"], "run folder must exist"),
        (["report", "RUN"], "run folder must exist"),
        (["train", "--run", "RUN"], "stage prepare must be complete"),
        (["train", "--run", "RUN", "--recipe", "mnist/cn"], "mean 'mnist/cnn'"),
    ],
)
def test_wrong_input_gets_one_clear_line_and_status_2(args, text, tmp_path, capsys):
    args = [str(tmp_path / "none") if arg == "RUN" else arg for arg in args]
    assert status_of(*args) == 2
    captured = capsys.readouterr()
    assert re.search(text, captured.err)
    assert "Traceback" not in captured.err


def test_an_unknown_flag_is_refused_with_the_nearest(capsys, tmp_path):
    assert status_of("run", "--run", str(tmp_path), "--train.epoch", "3") == 2
    assert "--train.epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(RaygradError("broke"), 1), (IncompleteError("part"), 3)]
)
def test_each_kind_of_error_has_its_exit_status(error, status, capsys):
    def work():
        raise error

    assert cli.guarded(work) == status
    assert capsys.readouterr().err == f"raygrad: {error}\n"


def test_a_stage_alone_takes_its_defaults_from_the_run(tmp_path):
    config = make_tiny_config(tmp_path)
    pipeline.bind(config)
    assert cli._parse(["train", "--run", config.run]).train == config.train
    assert cli._parse(["select", config.run]).select == config.select
    parsed = cli._parse(["run", "--run", config.run, "--select.seeds", "7"])
    expected = dataclasses.replace(config.select, seeds=(7,))
    assert (parsed.select, parsed.train, parsed.data) == (expected, config.train, config.data)


def test_a_recipe_gives_trainings_defaults_and_flags_change_them(tmp_path):
    config = make_tiny_config(tmp_path)
    pipeline.bind(config)
    expected = dataclasses.replace(recipe("cifar10", "cnn5"), epochs=7)
    args = ["train", "--run", config.run, "--recipe", "cifar10/cnn5", "--epochs", "7"]
    assert cli._parse(args).train == expected
    args = ["run", "--run", config.run, "--recipe=cifar10/cnn5", "--train.epochs", "7"]
    parsed = cli._parse(args)
    assert (parsed.train, parsed.select) == (expected, config.select)
    new = ["run", "--run", str(tmp_path / "new"), "--recipe", "cifar10/cnn5"]
    assert cli._parse(new).train == recipe("cifar10", "cnn5")


def test_a_job_takes_the_recipe_of_another_network(capsys, tmp_path):
    config = dataclasses.replace(make_tiny_config(tmp_path), run=str(tmp_path / "new"))
    args = ["--recipe", "cifar10/cnn5", "--train.epochs", "7", "--plan"]
    assert cli.job(config, args=args) == 0
    said = capsys.readouterr().out
    assert "cnn5" in said
    assert "at most 7 epochs in batches of 128" in said
    assert cli.job(config, args=["--recipe", "cifar10/cnn6"]) == 2
    assert "'cifar10/cnn5'" in capsys.readouterr().err


def test_select_takes_flags_in_the_singular(tmp_path):
    config = make_tiny_config(tmp_path)
    pipeline.bind(config)
    args = ["--method", "gradient_cdf", "--keep-fraction", "0.2", "0.4", "--seed", "5"]
    select = cli._parse(["select", config.run, *args]).select
    assert select.methods == ("gradient_cdf",)
    assert select.keep_fractions == (0.2, 0.4)
    assert select.seeds == (5,)


def test_a_mistaken_command_does_not_bind_the_run(tmp_path, ray_session, capsys):
    """After wrong input the right one is taken in the same run folder."""
    run = str(tmp_path / "run")
    assert status_of("index", str(tmp_path / "none-*.tar"), "--run", run) == 2
    assert status_of("prepare", "digts", "--run", run) == 2
    assert status_of("prepare", "digits", "--run", run) == 0
    assert status_of("prepare", "digits", "--run", run, "--val-fraction", "0.2") == 2
    assert "data.val_fraction was 0.1, got 0.2" in capsys.readouterr().err


def test_a_practitioners_tars_are_indexed_scored_and_exported(tmp_path, ray_session, capsys):
    """Tars of another run stand for anyone's: indexed as they are, and a subset written anew."""
    out, run = str(tmp_path / "tars"), str(tmp_path / "run")
    assert status_of("prepare", "digits", "--out", out, "--shard-bytes", "700000") == 0
    train, test = f"{out}/train-*.tar", f"{out}/test-*.tar"
    assert status_of("index", train, "--run", run, "--test-tars", test) == 0
    args = ["--network", "linear", "--epochs", "1", "--lr-decay-epochs"]
    assert status_of("train", "--run", run, *args) == 0
    assert status_of("score", "--run", run) == 0
    args = ["--method", "max_gradient", "--keep-fraction", "0.1", "--seed", "0"]
    assert status_of("select", run, *args) == 0
    subset = f"{run}/subsets/max_gradient-0.1-0.parquet"
    assert status_of("export", subset, "--run", run, "--out", str(tmp_path / "kept")) == 0
    with tarfile.open(tmp_path / "kept" / "subset-000000.tar") as tar:
        kept = {name.partition(".")[0] for name in tar.getnames()}
    assert kept == set(pq.read_table(subset)["key"].to_pylist())


def test_a_reader_that_has_had_enough_ends_the_command_quietly():
    """As in `raygrad select --list | head -1`; the pipe is closed before anything is written."""
    code = "import sys, raygrad.cli as cli; sys.exit(cli.main(['select', '--list']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


@pytest.mark.parametrize(
    "start", ["runpy.run_module('raygrad', run_name='__main__')", "sys.exit(cli.job(None))"]
)
def test_ctrl_c_while_it_is_imported_stops_it_without_a_stack(start, sigint_heard):
    """The first second or so of every command is its imports; a stack says nothing to a user."""
    code = (
        "import os, runpy, signal, sys, raygrad.cli as cli\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tyro': os.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.meta_path.insert(0, Stop())\n{start}"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 130
    assert ran.stderr == "raygrad: stopped; the same command goes on from here\n"


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train", "--help"], ["score"]])
def test_help_a_version_and_a_wrong_flag_cost_a_second_of_cpu_at_most(args):
    """Neither torch nor Ray nor a store is imported for them; the parser takes what there is."""
    code = (
        "import sys, time; import raygrad.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'ray', 'boto3', 'scipy', 'sklearn', 'matplotlib', 'pandas'}\n"
        "heavy = slow & set(sys.modules)\n"
        "print(sorted(heavy), time.process_time() < 1.0, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == "[] True"


def test_the_version_is_said(capsys):
    assert status_of("--version") == 0
    assert capsys.readouterr().out == f"raygrad {raygrad.__version__}\n"


def test_a_scoring_actor_imports_no_engine_that_it_does_not_use():
    """Ray Tune, Ray Train, torchvision, its compiler and Matplotlib together take six seconds."""
    slow = ["ray.train", "ray.tune", "torchvision", "torch._dynamo", "matplotlib"]
    code = (
        "import sys, torch, raygrad.engine.score.actor\n"
        "from raygrad.scoring import per_example_grad_norms as norms\n"
        "network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), "
        "torch.nn.Linear(8, 2)).eval()\n"
        "norms(network, torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64))\n"
        f"print([name for name in {slow} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
