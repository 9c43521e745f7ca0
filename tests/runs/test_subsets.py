"""Subsets that were made elsewhere: any Parquet file of keys, its origin read from its name."""

import pandas as pd
import pytest

from raygrad.errors import ConfigError
from raygrad.runs.subsets import read_subset


def put(path, **columns):
    pd.DataFrame(columns).to_parquet(path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "method", "fraction", "seed"),
    [
        ("mine.parquet", "mine", None, 0),
        ("mine-3.parquet", "mine", None, 3),
        ("mine-0.1-3.parquet", "mine", 0.1, 3),
        ("mine-1.0-3.parquet", "mine", 1.0, 3),
        ("k-center-12.parquet", "k-center", None, 12),
        ("k-center-0.003-12.parquet", "k-center", 0.003, 12),
        ("k-center.parquet", "k-center", None, 0),
        ("top-5-2.parquet", "top-5", None, 2),
        ("mine-1-3.parquet", "mine-1", None, 3),
        ("mine-5e-05-3.parquet", "mine", 5e-05, 3),
    ],
)
def test_the_name_is_the_origin(tmp_path, name, method, fraction, seed):
    table, origin = read_subset(put(tmp_path / name, key=["a", "b"]))
    assert table.to_pydict() == {"key": ["a", "b"], "weight": [1.0, 1.0]}
    assert origin == {
        "method": method,
        "keep_fraction": fraction,
        "seed": seed,
        "score_network": None,
        "score_column": None,
    }


def test_weights_and_keys_of_other_types_are_taken(tmp_path):
    frame = pd.DataFrame({"key": pd.Categorical(["b", "a"]), "weight": [2, 3], "note": ["x", "y"]})
    frame.to_parquet(tmp_path / "mine.parquet")
    table, _ = read_subset(str(tmp_path / "mine.parquet"))
    assert table.to_pydict() == {"key": ["b", "a"], "weight": [2.0, 3.0]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"]}, "must have a column key, got name in"),
        ({"key": []}, "must have a key in every row"),
        ({"key": ["a", None]}, "must have a key in every row"),
        ({"key": [["a"], ["b"]]}, "column key of a subset must be of type string, got list"),
        ({"key": ["a"], "weight": ["heavy"]}, "column weight of a subset must be of type double"),
        ({"key": ["a", "b"], "weight": [1.0, None]}, "at least 0, .* got nan"),
        ({"key": ["a", "b"], "weight": [1.0, -2.0]}, "at least 0, .* got -2.0"),
        ({"key": ["a"], "weight": [float("inf")]}, "must be finite, .* got inf"),
        ({"key": ["a"], "weight": [0.0]}, "one of them above 0, got zeros alone"),
    ],
)
def test_what_is_no_subset_is_refused_by_name(tmp_path, columns, message):
    url = put(tmp_path / "mine.parquet", **columns)
    with pytest.raises(ConfigError, match=message) as error:
        read_subset(url)
    assert url in str(error.value)


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_text("key\na\n")
    with pytest.raises(ConfigError, match=r"must be a Parquet file, got .*mine\.csv"):
        read_subset(str(tmp_path / "mine.csv"))


def test_a_damaged_file_and_a_folder_are_refused(tmp_path):
    """Whatever the reader of Parquet says of it, the command shows one line."""
    whole = tmp_path / "mine.parquet"
    put(whole, key=[f"key-{at}" for at in range(1000)])
    content = whole.read_bytes()
    for name, damaged in {
        "cut": content[: len(content) // 2],
        "data": content[:4] + b"\xff" * 200 + content[204:],
        "footer": content[:-300] + b"\xff" * 290 + content[-10:],
        "length": content[:-8] + b"\xff\xff\xff\x7f" + content[-4:],
    }.items():
        whole.write_bytes(damaged)
        with pytest.raises(ConfigError, match="must be a Parquet file") as error:
            read_subset(str(whole))
        assert str(whole) in str(error.value), name
    with pytest.raises(ConfigError, match="must be a file, got the folder"):
        read_subset(str(tmp_path))
