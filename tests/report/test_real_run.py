"""The report of runs that the engines made, not of tables that a test wrote."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raygrad import pipeline
from raygrad.report import write_report
from tests.cases import make_tiny_config


@pytest.mark.slow
def test_the_engines_run_of_digits_gives_its_figures_and_numbers(ray_session, tmp_path):
    config = make_tiny_config(tmp_path)
    results = pipeline.run(config).to_pandas()
    url = Path(write_report([config.run], str(tmp_path / "again")))
    page = url.read_text()
    for name in ("accuracy", "gain", "images", "classes", "entropy", "correlation", "cost"):
        assert (url.parent / "figures" / f"{name}.png").exists()
        assert f'id="figure-{name}"' in page
    full = results[results.keep_fraction == 1.0].test_accuracy
    assert f"On all the data: {100 * full.mean():.2f}%" in page
    index = pq.read_table(Path(config.run) / "data" / "index.parquet").to_pandas()
    train = index[index.split == "train"]
    assert f"<dt>training examples</dt><dd>{len(train):,}</dd>" in page
    shown = set(re.findall(r'class="tile" data-key="([^"]*)"', page))
    assert shown
    assert shown <= set(train.key)
