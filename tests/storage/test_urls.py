"""What a user writes becomes the right list of shards."""

import glob

import pytest

from raygrad.errors import ConfigError
from raygrad.storage.urls import expand


@pytest.fixture
def folder(tmp_path):
    for name in (
        "a-0.tar",
        "a-1.tar",
        "a-10.tar",
        "b-0.tar",
        "c.txt",
        "sub/a-0.tar",
        "sub/x/d.tar",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_numeric_braces_keep_their_zeros_and_need_no_file():
    assert expand("s3://b/t-{0008..0011}.tar") == [f"s3://b/t-{n:04d}.tar" for n in range(8, 12)]


def test_braces_nest_and_multiply():
    assert expand("x/{a,b{1..2}}.tar") == ["x/a.tar", "x/b1.tar", "x/b2.tar"]


@pytest.mark.parametrize("pattern", ["*.tar", "a-?.tar", "[ab]-0.tar", "*/*.tar", "s*/a-*.tar"])
def test_globs_match_what_the_standard_library_matches(folder, pattern):
    assert expand(f"{folder}/{pattern}") == sorted(glob.glob(f"{folder}/{pattern}"))


def test_a_relative_glob_gives_relative_urls(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert expand("a-*.tar") == sorted(glob.glob("a-*.tar"))


def test_a_list_keeps_its_order_and_braces_go_before_globs(folder):
    urls = expand([f"{folder}/b-0.tar", f"{folder}/{{sub/,}}a-*.tar"])
    names = [url.removeprefix(f"{folder}/") for url in urls]
    assert names == ["b-0.tar", "sub/a-0.tar", "a-0.tar", "a-1.tar", "a-10.tar"]


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        ([], "must be named"),
        ("x-{0..3.tar", "must close"),
        ("nowhere/*.tar", "must match a file"),
        (["a.tar", "a.tar"], "twice"),
        ("s3://*/a.tar", "bucket"),
    ],
)
def test_wrong_patterns_are_refused(urls, says):
    with pytest.raises(ConfigError, match=says):
        expand(urls)
