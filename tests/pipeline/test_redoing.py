"""Doing a stage again removes what came of it, all of it, and nothing before it can be done."""

import pyarrow.parquet as pq

from raygrad.pipeline.redoing import _with_replicates, forget_features, forget_trials
from raygrad.runs.layout import RunLayout
from raygrad.runs.result_rows import ResultRows, write_row
from raygrad.storage import files
from raygrad.storage.manifest import write_marker


def test_replicates_of_a_network_with_a_folder_in_its_name_are_found(tmp_path):
    """Where they stand now, and where an older raygrad wrote them."""
    layout, name = RunLayout(str(tmp_path)), "timm/resnet18"
    for number in (1, 2):
        write_marker(layout.marker(f"train-{name}-seed{number}"), "d")
    write_marker(f"{tmp_path}/stages/train-{name}-seed3.json", "d")
    names = _with_replicates(layout, "train", name)
    assert names == [name, *(f"{name}-seed{number}" for number in (1, 2, 3))]
    for one in names:
        files.remove(layout.marker(f"train-{one}"))
    assert layout.marked() == []
    write_marker(layout.marker(f"features-{name}@abcd"), "d")
    write_marker(layout.marker(f"features-{name}50"), "d")
    forget_features(layout, name)
    assert layout.marked() == ["features-timm-resnet1850"]


def test_retrainings_that_are_removed_are_not_in_the_table_either(tmp_path):
    layout = RunLayout(str(tmp_path))
    for trial, method in (("a", "random"), ("b", "ccs")):
        row = {"method": method, "keep_fraction": 0.1, "seed": 0, "network": "cnn"}
        write_row(layout.sweep, {"trial": trial, **row})
    ResultRows(layout.sweep, layout.results).write()
    forget_trials(layout)
    assert pq.read_table(layout.results)["trial"].to_pylist() == ["a"]
