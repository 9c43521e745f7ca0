"""A page of several runs: each run's part shows its own figures, whatever the runs are called."""

import json
import re
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raygrad.report import write_report
from raygrad.report.markup import slug, unique_slugs


def named(folder: Path, out: Path, name: str, gain: float) -> str:
    """A copy of a run under another name, whose test accuracies are other ones."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.tar", "report"))
    facts = out / "data" / "shards" / "dataset.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "name": name}))
    path = out / "sweep" / "results.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("test_accuracy")
    values = pc.multiply(table["test_accuracy"], gain)
    pq.write_table(table.set_column(at, "test_accuracy", values), path)
    return str(out)


def test_slugs_that_would_be_the_same_are_numbered():
    texts = ["cats v1", "cats-v1", "коты", "собаки", "compared", "cats v1 2"]
    found = unique_slugs(texts, ["compared"])
    assert found == ["cats-v1", "cats-v1-2", "x", "x-2", "compared-2", "cats-v1-2-2"]
    assert unique_slugs(["MNIST", "CIFAR-10"]) == [slug("MNIST"), slug("CIFAR-10")]


def test_runs_whose_names_have_one_slug_each_have_their_own_figures(
    small_run_folder, drawn_once, tmp_path
):
    names = ["cats v1", "cats-v1", "compared"]
    gains = [1.0, 0.5, 0.25]
    runs = [
        named(small_run_folder, tmp_path / str(at), name, gain)
        for at, (name, gain) in enumerate(zip(names, gains, strict=True))
    ]
    url = Path(write_report(runs, str(tmp_path / "out")))
    means = []
    for place in ("cats-v1", "cats-v1-2", "compared-2"):
        lines = (url.parent / "figures" / f"{place}-accuracy.csv").read_text().splitlines()
        at = [name.strip('"') for name in lines[0].split(",")].index("mean")
        means.append(float(lines[1].split(",")[at]))
    assert [mean / means[0] for mean in means] == pytest.approx(gains)
    page = url.read_text()
    # What is within drawings is not drawn here.
    ids = re.findall(r'<(?:article|section|figure|div)[^>]* id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for link, title in zip(re.findall(r'<li><a href="#([^"]*)">', page), names, strict=False):
        assert link in ids, title
