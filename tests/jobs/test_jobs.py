"""The experiments of jobs/: the paper's configuration of each, open to flags, and nothing more."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from braceexpand import braceexpand

from raygrad import pipeline
from tests.data.making import example, jpeg, put

ROOT = Path(__file__).parent.parent.parent
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
STUDIES = ["cifar10", "cifar100", "imagenet", "mnist"]


def load(name):
    spec = importlib.util.spec_from_file_location(f"job_{name}", ROOT / "jobs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_configuration_and_one_call(name):
    text = (ROOT / "jobs" / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert text.count("job(") == 1
    statements = {type(statement) for statement in ast.parse(text).body}
    assert statements <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.If}
    assert not re.search(r"^(import|from) ray\b", text, re.M)


@pytest.mark.parametrize("name", JOBS)
def test_every_name_in_a_job_is_known(name):
    module = load(name)
    for config in (module.CONFIG, getattr(module, "SMOKE", module.CONFIG)):
        pipeline.check(config)


@pytest.mark.parametrize("name", STUDIES)
def test_the_score_is_the_papers(name):
    """l2 over the last layer's weights for MNIST and CIFAR, over all weights for ImageNet."""
    select = load(name).CONFIG.select
    wanted = "grad_l2_weights" if name == "imagenet" else "grad_l2_last_layer_weights"
    assert select.score_column == wanted
    methods = {"random", "max_gradient", "gradient_cdf"}
    if name != "imagenet":
        methods |= {"non_extreme_max_gradient"}
    assert set(select.methods) == methods
    assert load(name).CONFIG.data.val_fraction == 0.1


def test_the_smallest_subset_of_mnist_is_the_papers_175_images():
    assert round(min(load("mnist").CONFIG.select.keep_fractions) * 54_000) == 175


@pytest.mark.parametrize("name", STUDIES)
def test_the_small_run_has_a_folder_of_its_own_and_few_examples(name):
    module = load(name)
    assert module.SMOKE.run != module.CONFIG.run
    assert module.SMOKE.data.max_examples <= 1000
    assert module.SMOKE.select.methods == module.CONFIG.select.methods


def run_job(name, args):
    from raygrad.cli import job

    module = load(name)
    return job(module.CONFIG, getattr(module, "SMOKE", None), args)


def test_a_plan_prints_what_would_run_and_runs_nothing(capsys, tmp_path):
    run = tmp_path / "run"
    assert run_job("imagenet", ["--plan", "--storage", str(run)]) == 0
    said = capsys.readouterr().out
    assert "vgg16" in said
    assert "grad_l2_weights" in said
    assert not run.exists()


def test_flags_hold_over_the_small_run_too(capsys):
    assert run_job("mnist", ["--train.epochs", "2", "--smoke", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "runs/mnist-smoke" in said
    assert "at most 2 epochs" in said


def test_a_wrong_flag_is_wrong_usage():
    assert run_job("mnist", ["--data.shard-byte", "1"]) == 2
    assert run_job("mnist", ["--plan", "--train.network", "nobody"]) == 2


def printed_commands():
    """Yields every command line of a job that a reader could copy, as its arguments."""
    texts = [(ROOT / "jobs" / f"{name}.py").read_text().split('"""')[1] for name in JOBS]
    texts += [(ROOT / name).read_text() for name in ("README.md", "cluster/README.md")]
    for text in texts:
        whole = re.sub(r"\s*\\\n\s*", " ", text)
        for line in re.findall(r"\bpython (jobs/\w+\.py[^`\n]*)", whole):
            if "..." not in line:
                yield shlex.split(re.sub(r"\[|\]", "", line))


@pytest.mark.parametrize("arguments", list(printed_commands()), ids=" ".join)
def test_a_printed_command_is_one_that_the_job_takes(arguments, tmp_path):
    """As far as flags go: planned, over data that nobody has prepared; two shards stand for all."""
    path, *flags = arguments
    if "--storage" not in flags:
        flags += ["--run", str(tmp_path)]
    flags = [re.sub(r"s3://[^/]+", str(tmp_path), flag) for flag in flags]
    flags = [re.sub(r"\{0+\.\.\d+\}", "{000000..000001}", flag) for flag in flags]
    for name in (flag for flag in flags if flag.endswith(".tar")):
        for url in braceexpand(name):
            put(Path(url).parent, Path(url).name, example("0", 0, "jpg", jpeg(0)))
    assert run_job(Path(path).stem, [*flags, "--plan"]) == 0
