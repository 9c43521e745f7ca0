"""What a user writes becomes the right list of shards."""

import glob

import pytest

from raygrad.errors import ConfigError
from raygrad.storage import files
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


def test_wildcards_match_no_hidden_file_and_links_that_lead_nowhere(folder):
    """A link to nothing is a shard that is missing, which its reader says; none is left out."""
    (folder / "._a-0.tar").write_bytes(b"")
    (folder / "a-7.tar").symlink_to(folder / "nothing")
    names = [url.removeprefix(f"{folder}/") for url in expand(f"{folder}/*.tar")]
    assert names == ["a-0.tar", "a-1.tar", "a-10.tar", "a-7.tar", "b-0.tar"]


def test_a_wildcard_in_a_folders_name_asks_only_what_it_needs(folder, monkeypatch):
    asked = []
    listed = files.list_entries

    def list_entries(url, prefix=""):
        asked.append(url.removeprefix(str(folder)).strip("/"))
        return listed(url, prefix)

    monkeypatch.setattr(files, "list_entries", list_entries)
    assert expand(f"{folder}/*/a-0.tar") == [f"{folder}/sub/a-0.tar"]
    assert asked == [""]
    assert expand(f"{folder}/s*/*/d.tar") == [f"{folder}/sub/x/d.tar"]
    assert asked == ["", "", "sub"]


def test_a_folder_that_may_not_be_read_is_left_out_and_said(folder, monkeypatch, caplog):
    (folder / "lost").mkdir()
    listed = files.list_entries

    def list_entries(url, prefix=""):
        if url.rstrip("/").endswith("lost"):
            raise PermissionError(url)
        return listed(url, prefix)

    monkeypatch.setattr(files, "list_entries", list_entries)
    with caplog.at_level("WARNING", "raygrad"):
        assert expand(f"{folder}/*/a-*.tar") == [f"{folder}/sub/a-0.tar"]
    assert "lost may not be read" in caplog.text


def test_an_empty_name_is_no_file():
    for urls in ("", ["", " "]):
        with pytest.raises(ConfigError, match="must be named"):
            expand(urls)
