"""`raygrad.Run` does what the commands do, and hands out what came of it; its examples run."""

import doctest
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import raygrad
from raygrad import pipeline
from raygrad.api import run as api_run
from raygrad.cli import command
from raygrad.config import StudyConfig
from raygrad.errors import ConfigError
from raygrad.runs.audit_tables import read_audit
from raygrad.runs.score_table import write_manifest, write_part
from raygrad.storage.manifest import read_json
from tests.pipeline.making_runs import without_ray
from tests.report.no_pictures import no_pictures

NUMBER = 40
SMALL = {"network": "linear", "folds": 2, "epochs": 1, "image_size": 8}
FLAGS = ("--network", "linear", "--folds", "2", "--epochs", "1", "--image-size", "8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/, class folders of digits, where relative names are meant from."""
    root = tmp_path_factory.mktemp("place")
    data = load_digits(n_class=2)
    for at, (image, label) in enumerate(zip(data.images[:NUMBER], data.target, strict=False)):
        folder = root / "photos" / f"digit{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / f"{at:02d}.png")
    with pytest.MonkeyPatch.context() as patched, no_pictures():
        without_ray(patched)
        patched.chdir(root)
        yield root


@pytest.fixture(scope="module")
def run(place):
    """From a folder of images to the audit's page in six lines of Python."""
    run = raygrad.Run("runs/six")
    found = run.audit("photos/", **SMALL)
    suspects = found.labels.filter(found.labels["suspect"])
    kept = found.keep["key"].to_pylist()
    page = run.report()
    assert page.endswith("runs/six/report/index.html")
    assert (place / "runs/six/report/audit.html").exists()
    assert suspects.num_rows == found.summary["num_suspects"]
    assert len(kept) == found.summary["num_kept"]
    return run


def test_readme_shows_the_six_lines_that_are_run_here():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme.split("```python\n")[1].split("```")[0]
    shown = [line for line in block.splitlines() if line]
    ran = Path(__file__).read_text().replace(", **SMALL", "")
    assert len(shown) == 6
    assert shown[0] == "import raygrad"
    assert "\n    ".join(shown[1:]) in ran


def test_two_commands_make_the_same_tables_and_the_page(place, run):
    """Also the same configuration: the folder goes on with either."""
    assert command.main(["audit", "photos/", "--run", "runs/two", *FLAGS]) == 0
    assert command.main(["report", "runs/two"]) == 0
    assert (place / "runs/two/report/audit.html").exists()
    ours, _ = read_audit("runs/six/audit")
    theirs, _ = read_audit("runs/two/audit")
    for name in ("labels", "repeats", "outliers", "keep", "drop"):
        assert ours[name].equals(theirs[name]), name
    configs = [read_json(f"runs/{name}/config.json") | {"run": ""} for name in ("six", "two")]
    assert configs[0] == configs[1]
    markers = [read_json(f"runs/{name}/stages/audit.json") for name in ("six", "two")]
    assert markers[0]["inputs_digest"] == markers[1]["inputs_digest"]


def test_the_examples_of_its_documentation_run(place):
    found = doctest.testmod(api_run)
    assert found.attempted >= 6
    assert found.failed == 0


def test_images_are_those_of_the_folder_by_key(place, run):
    index = run.index_table
    assert index.num_rows == NUMBER
    keys = index["key"].to_pylist()[:3]
    found = run.images([keys[2], keys[0], keys[0]])
    assert list(found) == [keys[2], keys[0]]
    for key, image in found.items():
        files = [p for p in (place / "photos").rglob("*.png") if key.endswith(p.stem)]
        own = np.asarray(Image.open(files[0]).convert(image.mode))
        np.testing.assert_array_equal(np.asarray(image), own)
    with pytest.raises(ConfigError, match=r'must be of an example, got "none"'):
        run.image("none")


def test_it_shows_where_it_stands_and_what_the_audit_came_to(run):
    assert "prepare complete, audit complete, report complete" in repr(run)
    html = run._repr_html_()
    assert html.count("<tr>") == 3
    assert "suspects" in html
    assert "num_suspects" in run.audited._repr_html_()
    nothing = raygrad.Run("runs/<b>none")
    assert nothing.status == []
    assert "Nothing yet" in nothing._repr_html_()
    assert "<b>none" not in nothing._repr_html_()


def test_scores_come_back_as_a_table_and_figures_as_matplotlibs(run, place):
    keys = run.index_table["key"].to_pylist()
    labels = run.index_table["label"]
    url = f"{run.folder}/scores/{run.config.scored_network}"
    import pyarrow as pa

    values = np.linspace(0, 1, len(keys)).astype(np.float32)
    table = pa.table({"key": keys, "label": labels, "grad_l2_last_layer_weights": values})
    shards = run.index_table["shard"]
    write_part(url, "s", table.append_column("shard", shards), {"of": "test"})
    write_manifest(url, ["s"], {"of": "test"}, 0.0)
    assert run.scores()["key"].to_pylist() == keys
    figures = run.figures()
    assert figures
    assert all(type(one).__module__.startswith("matplotlib") for one in figures.values())
    for what, call in {
        "Do: raygrad score": lambda: run.scores("none"),
        "Do: raygrad sweep": lambda: run.results,
        "raygrad audit": lambda: raygrad.Run("runs/none").audited,
        "without a config": lambda: raygrad.Run("runs/none").select(),
    }.items():
        with pytest.raises(ConfigError, match=what):
            call()


PAIRS = {
    "prepare digits --run R --val-fraction 0.2": lambda r: r.prepare("digits", val_fraction=0.2),
    "prepare photos/ --run R": lambda r: r.prepare("photos/"),
    "index photos/ --run R --image-size 16 --labels folder": lambda r: r.index(
        "photos/", image_size=16, labels="folder"
    ),
    "train --run R --network mlp --epochs 3 --score-seeds 0 1": lambda r: r.train(
        "mlp", epochs=3, score_seeds=[0, 1]
    ),
    "train --run R --recipe mnist/cnn --batch-size 32": lambda r: r.train(
        recipe="mnist/cnn", batch_size=32
    ),
    "train --run R --dynamics --max-reject-share 0.2": lambda r: r.train(
        dynamics=True, max_reject_share=0.2
    ),
    "score --run R --columns loss el2n": lambda r: r.score(columns=["loss", "el2n"]),
    "score --run R --data photos/ --network linear --fresh-weights": lambda r: r.score(
        "photos/", network="linear", fresh_weights=True
    ),
    "audit --run R --network linear --goal coverage --keep-fraction 0.5 --check": lambda r: r.audit(
        network="linear", goal="coverage", keep_fraction=0.5, check=True
    ),
    "audit photos/ --run R --max-reject-share 0.1 --redo": lambda r: r.audit(
        "photos/", max_reject_share=0.1, redo=True
    ),
    "select R --methods random --keep-fractions 0.1 0.5 --seeds 3": lambda r: r.select(
        methods="random", keep_fractions=[0.1, 0.5], seeds=3
    ),
    "sweep --run R --protocols equal_steps --subsets a.parquet": lambda r: r.sweep(
        "a.parquet", protocols="equal_steps"
    ),
    "sweep --run R --methods random": lambda r: r.sweep(select={"methods": "random"}),
}


@pytest.mark.parametrize("line", PAIRS)
def test_a_command_and_its_method_ask_for_the_same(line, place, monkeypatch, capsys):
    """What reaches the stages, settings and all, is equal: neither has a logic of its own."""
    pipeline.bind(StudyConfig("R"))
    calls = {"command": [], "method": []}
    who = "command"

    def stage(name, result):
        def do(*given, **named):
            calls[who].append((name, given, named))
            return result

        return do

    facts = {"network": "n", "test_accuracy": 1.0, "best_epoch": 1, "epochs": 1,
             "val_accuracy": 1.0, "num_examples": 1, "num_shards": 1}  # fmt: skip
    for name in ("prepare", "index_shards", "train", "score", "audit", "select", "sweep"):
        monkeypatch.setattr(pipeline, name, stage(name, facts), raising=False)
    monkeypatch.setattr(pipeline, "check", stage("check", None), raising=False)
    monkeypatch.setattr(pipeline, "bound", lambda *given: _bound(stage, given), raising=False)
    monkeypatch.setattr(pipeline, "subset_urls", lambda config: [], raising=False)
    monkeypatch.setattr("raygrad.cli.audit_subcommand._lines", lambda facts: [])
    monkeypatch.setattr("raygrad.cli.subcommands.print_results", lambda results: None)
    for name in ("scores", "index_table", "audit_tables"):
        monkeypatch.setattr(f"raygrad.api.run_contents.{name}", lambda *given: None)
    assert command.main(line.split()) == 0, capsys.readouterr().err
    who = "method"
    PAIRS[line](raygrad.Run("R"))
    assert calls["command"], "the command reached no stage"
    assert calls["method"] == calls["command"]


def _bound(stage, given):
    import contextlib

    stage("bound", None)(*given)
    return contextlib.nullcontext()


def test_a_setting_that_is_none_is_refused_by_name(run):
    with pytest.raises(ConfigError, match=r"got 'epoch'. Did you mean 'epochs'"):
        run.train(epoch=3)
    with pytest.raises(ConfigError, match="a setting of audit must be one of"):
        run.audit(folder="x")
    with pytest.raises(ConfigError, match="data must be named, got ''"):
        run.index("")


def test_importing_raygrad_brings_neither_torch_nor_ray_nor_pyarrow():
    import subprocess

    code = (
        "import sys, raygrad; assert raygrad.__version__; "
        "assert not {'torch', 'ray', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
