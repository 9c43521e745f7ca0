"""How often a command lists a folder of very many files, of which each listing takes seconds."""

from collections import Counter

import pytest

from raygrad.cli import command as cli
from raygrad.data.fingerprint import Seen
from raygrad.runs import gathered_rows
from raygrad.storage import files, s3_client
from tests.data.making import example, jpeg, tar
from tests.pipeline.making_runs import without_ray

NUM = 4
OWN = "--network linear --fresh-weights --num-classes 2 --image-size 8 --columns grad_l2_all loss"


@pytest.fixture
def listed(s3_url):
    """Counts the requests that list, by the folder that they list."""
    counts: Counter[str] = Counter()

    def count(model, params, **_):
        del model
        prefix = params["query_string"]["prefix"]
        counts[f"s3://probe/{prefix}".removeprefix(f"{s3_url}/")] += 1

    events = s3_client.client().meta.events
    events.register("before-call.s3.ListObjectsV2", count)
    yield counts
    events.unregister("before-call.s3.ListObjectsV2", count)


@pytest.fixture
def shards(s3_url):
    for at in range(NUM):
        members = [one for n in range(2) for one in example(f"s{at}-{n}", n, "jpg", jpeg(at + n))]
        files.write_bytes(f"{s3_url}/data/t-{at}.tar", tar(members))
    return f"{s3_url}/data/t-{{0..{NUM - 1}}}.tar"


def test_a_resume_with_all_parts_there_lists_data_and_parts_once(
    monkeypatch, s3_url, shards, listed
):
    """Eight times before: every check, and every list that was written, took a look of its own."""
    without_ray(monkeypatch)
    monkeypatch.setattr(gathered_rows, "MIN_PARTS", 2)
    run = f"{s3_url}/run"
    command = ["score", "--data", shards, "--run", run, *OWN.split()]
    assert cli.main(command) == 0
    scores = f"{run}/scores/linear"
    for name in (f"{run}/stages/score-linear.json", f"{scores}/_manifest.json"):
        files.remove(name)
    listed.clear()
    assert cli.main(command) == 0
    assert files.exists(f"{scores}/_manifest.json")
    assert (listed["data/"], listed["run/scores/linear/"]) == (1, 1), listed


def test_a_resume_that_scores_lists_the_parts_once_more(monkeypatch, s3_url, shards, listed):
    """A part that others removed or wrote meanwhile is seen."""
    without_ray(monkeypatch)
    command = ["score", "--data", shards, "--run", f"{s3_url}/run", *OWN.split()]
    assert cli.main(command) == 0
    files.remove(f"{s3_url}/run/scores/linear/part-t-1.parquet")
    files.remove(f"{s3_url}/run/stages/score-linear.json")
    listed.clear()
    assert cli.main(command) == 0
    assert (listed["data/"], listed["run/scores/linear/"]) == (1, 2), listed


def test_many_subsets_of_a_table_are_drawn_with_one_look_at_it(monkeypatch, s3_url, shards, listed):
    without_ray(monkeypatch)
    run = f"{s3_url}/run"
    assert cli.main(["score", "--data", shards, "--run", run, *OWN.split()]) == 0
    listed.clear()
    drawn = "--fresh-scores --methods max_gradient random --keep-fractions 0.25 0.5 --seeds 0 1"
    assert cli.main(["select", "--run", run, *drawn.split()]) == 0
    assert len(files.list_files(f"{run}/subsets", ".parquet")) == 8
    assert listed["run/scores/linear/"] == 1, listed


def test_what_was_seen_is_not_asked_for_again_and_what_is_new_is(tmp_path):
    """Also of a file that was not there."""
    old, new, none = (str(tmp_path / name) for name in ("old", "new", "none"))
    for url in (old, new):
        files.write_bytes(url, b"1")
    seen = Seen()
    first = seen.states([old, none])
    assert list(first) == [old]
    files.write_bytes(old, b"12")
    files.write_bytes(none, b"12")
    assert seen.states([old, none]) == first
    assert seen.states([new, old]) == {**files.states([new]), **first}
    assert Seen().states([old])[old][0] == 2
