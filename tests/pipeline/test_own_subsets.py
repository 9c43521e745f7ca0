"""Retraining on subsets that were made elsewhere: in a run folder that is prepared, not scored."""

import logging
import re
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from raygrad import pipeline
from raygrad.cli import command as cli
from raygrad.errors import ConfigError, DataError
from raygrad.pipeline import trial_grid
from raygrad.pipeline.trial_grid import planned_trials
from raygrad.runs.layout import RunLayout
from tests.cases import make_tiny_config


@pytest.fixture(scope="module")
def prepared(ray_session, tmp_path_factory):
    """The configuration of a run folder that holds data and nothing else."""
    config = make_tiny_config(tmp_path_factory.mktemp("own"))
    pipeline.bind(config)
    pipeline.prepare(config)
    return config


@pytest.fixture(scope="module")
def train_keys(prepared):
    """The keys of the training split."""
    index = pq.read_table(Path(prepared.run, "data/index.parquet")).to_pandas()
    return index[index.split == "train"].key.tolist()


@pytest.fixture
def keys(train_keys):
    """Forty keys of the training split."""
    return train_keys[::33][:40]


def subset(path, keys):
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame({"key": keys}).to_parquet(path)
    return str(path)


def test_networks_are_planned_and_retrained_on_them_and_the_report_shows_them(
    prepared, train_keys, keys, tmp_path, caplog, capsys
):
    """A second time nothing is left to do; a plan counts what is missing."""
    names = f"{tmp_path}/mine-{{0,1}}.parquet"
    for seed in (0, 1):
        subset(tmp_path / f"mine-{seed}.parquet", keys)
    command = ["--run", prepared.run, "--subsets", names]
    assert cli.main(["plan", *command, "--seconds", "0.5"]) == 0
    planned = re.findall(r"^linear .* mine +\S+ +(\d+) ", capsys.readouterr().out, re.M)
    assert planned == ["2", "2"], "two seeds by each of two protocols"
    assert cli.main(["sweep", *command]) == 0
    mine = pq.read_table(RunLayout(prepared.run).results).to_pandas()
    assert mine.method.tolist() == ["mine"] * 4, "two subsets by two protocols"
    assert set(mine.budget) == {40}
    assert mine.score_column.isna().all()
    assert mine.score_network.isna().all()
    assert mine.keep_fraction.tolist() == pytest.approx([40 / len(train_keys)] * 4)
    with caplog.at_level(logging.INFO, "raygrad"):
        again = pipeline.sweep(prepared, (names,)).to_pandas()
    assert again.equals(mine)
    assert "sweep: 4 of 4 trials are finished" in caplog.text
    page = Path(pipeline.report(prepared))
    drawn = pd.read_csv(page.parent / "figures/accuracy.csv")
    assert set(drawn.method) == {"mine"}


def test_a_file_is_read_once(prepared, keys, tmp_path, monkeypatch):
    read = []
    reading = trial_grid.read_subset
    monkeypatch.setattr(trial_grid, "read_subset", lambda url: read.append(url) or reading(url))
    url = subset(tmp_path / "mine.parquet", keys)
    assert len(planned_trials(prepared, (url,))) == 2
    assert read == [url]


def test_a_share_in_the_name_is_taken_where_it_fits(prepared, train_keys, keys, tmp_path):
    share = round(40 / len(train_keys), 5)
    fitting = subset(tmp_path / f"mine-{share}-0.parquet", keys)
    other = subset(tmp_path / "yours-0.5-0.parquet", keys)
    planned = planned_trials(prepared, (fitting, other))
    assert [t.keep_fraction for t, _ in planned[::2]] == [share, 40 / len(train_keys)]


def test_those_of_other_data_or_that_look_alike_are_refused(prepared, keys, tmp_path):
    strange = subset(tmp_path / "strange.parquet", [*keys, "no/such/key"])
    with pytest.raises(DataError, match=r"got 1 of 41 .*'no/such/key'.*strange\.parquet"):
        pipeline.sweep(prepared, (strange,))
    twice = subset(tmp_path / "twice.parquet", [*keys, keys[0]])
    with pytest.raises(DataError, match=r"must be unique.*twice\.parquet"):
        pipeline.sweep(prepared, (twice,))
    alike = [subset(tmp_path / f"{at}mine.parquet", keys) for at in ("", "a/")]
    with pytest.raises(ConfigError, match=r"must differ in method, size or seed"):
        pipeline.sweep(prepared, tuple(alike))


def test_the_command_says_what_is_wrong_with_a_file(prepared, tmp_path, capsys):
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 and no more PAR1")
    command = ["sweep", "--run", prepared.run, "--subsets", str(tmp_path / "mine.parquet")]
    assert cli.main(command) == 2
    assert re.search(r"must be a Parquet file, got .*mine\.parquet", capsys.readouterr().err)


def test_they_are_exported_as_shards(prepared, keys, tmp_path, capsys):
    url = subset(tmp_path / "mine.parquet", keys)
    out = tmp_path / "out"
    assert cli.main(["export", url, "--run", prepared.run, "--out", str(out)]) == 0
    found = []
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            found += [name for name in tar.getnames() if name.endswith(".cls")]
    assert len(found) == len(keys)
