"""Reading by index: whole shards and subsets, on disk and S3, give what the tars hold."""

import functools
import itertools
import os
import shutil
import tarfile
import threading

import numpy as np
import pytest

from raygrad.data import reading
from raygrad.data.index import build_index
from raygrad.data.reading import read_rows, rows_of_keys
from raygrad.errors import DataError, IncompleteError
from raygrad.storage import files, s3, s3_versions
from raygrad.storage.ranges import StorageCost
from tests.data.making import examples, jpeg, put, tar

NUM_SHARDS, PER_SHARD = 3, 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of JPEGs of many sizes, one key with a long name, one that is not ASCII."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(NUM_SHARDS):
        keys = [f"k{shard}-{at:03d}" for at in range(PER_SHARD)]
        keys[3], keys[4] = f"folder{shard}/{'long' * 60}", f"größe/{shard}"
        members = []
        for at, key in enumerate(keys):
            image = jpeg(1000 * shard + at, (16 + at, 12)) + bytes(37 * at)
            members += [(f"{key}.JPEG", image), (f"{key}.cls", str(at % 5).encode())]
        put(folder, f"train-{shard}.tar", members)
    return folder


@pytest.fixture(scope="module")
def index(folder):
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return build_index(urls, [], val_fraction=0.0)


@pytest.fixture(scope="module")
def oracle(folder):
    """Key to (label, image), read by tarfile."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as one:
            content = {m.name: one.extractfile(m).read() for m in one}
        for name, data in content.items():
            if name.endswith(".JPEG"):
                key = name.removesuffix(".JPEG")
                found[key] = (int(content[f"{key}.cls"]), data)
    return found


@pytest.fixture
def s3_index(folder, s3_url):
    urls = []
    for path in sorted(folder.glob("*.tar")):
        urls.append(f"{s3_url}/{path.name}")
        files.write_bytes(urls[-1], path.read_bytes())
    return build_index(urls, [], val_fraction=0.0)


def subset(index, share, seed=0):
    chosen = np.random.default_rng(seed).permutation(index.examples.num_rows)
    return index.examples.take(chosen[: max(1, round(share * len(chosen)))])


def as_dict(found):
    found = list(found)
    assert len({one.key for one in found}) == len(found)
    return {one.key: (one.label, one.image) for one in found}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_any_subset_equals_tarfile(index, oracle, share):
    rows = subset(index, share)
    assert as_dict(read_rows(index, rows)) == {k: oracle[k] for k in rows["key"].to_pylist()}


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_s3_gives_the_same_as_disk(index, s3_index, share):
    assert list(read_rows(s3_index, subset(s3_index, share))) == list(
        read_rows(index, subset(index, share))
    )


def test_shards_come_as_named_and_examples_as_stored(index):
    rows = index.examples.take(list(reversed(range(index.examples.num_rows))))
    found = [(one.shard, one.key) for one in read_rows(index, rows)]
    stored = [tuple(row.values()) for row in index.examples.select(["shard", "key"]).to_pylist()]
    by_shard = [pair for n in (2, 1, 0) for pair in stored if pair[0] == f"train-{n}"]
    assert found == by_shard


def test_keys_find_their_rows_in_their_order(index):
    keys = index.examples["key"].to_pylist()
    wanted = [keys[at] for at in (70, 3, 4, 119, 0)]
    assert rows_of_keys(index, wanted)["key"].to_pylist() == wanted
    assert rows_of_keys(index, []).num_rows == 0
    with pytest.raises(DataError, match="'unknown'"):
        rows_of_keys(index, [*wanted, "unknown"])


def changed(index, folder, tmp_path, change):
    """The index over a copy of its shards of which the second is changed."""
    copies = []
    for path in sorted(folder.glob("*.tar")):
        copies.append(str(shutil.copy(path, tmp_path / path.name)))
    again = build_index(copies, [], val_fraction=0.0)
    with open(copies[1], "rb") as stream:
        data = stream.read()
    files.write_bytes(copies[1], change(data))
    return again


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[512:] + bytes(512),
        lambda data: b"\xff" * len(data),
        lambda data: tar(examples([f"x{n}" for n in range(40)])).ljust(len(data), b"\0")[
            : len(data)
        ],
    ],
    ids=["a byte less", "half", "empty", "zeros", "shifted", "garbage", "another tar"],
)
def test_a_shard_that_changed_since_it_was_indexed_is_an_error(index, folder, tmp_path, change):
    """Never pixels of another example, never fewer examples."""
    bad = changed(index, folder, tmp_path, change)
    with pytest.raises((DataError, IncompleteError), match=r"must be as it was|must not change"):
        list(read_rows(bad, bad.examples))


def test_images_that_change_places_are_noticed(index, folder, tmp_path):
    """Two members of one size, exchanged: the header's name tells."""
    members = [(f"{key}.png", bytes([at]) * 100) for at, key in enumerate("abc")]
    members = [m for pair in members for m in (pair, (pair[0][0] + ".cls", b"0"))]
    url = put(tmp_path, "t.tar", members)
    built = build_index([url], [], val_fraction=0.0)
    put(tmp_path, "t.tar", [members[2], members[3], members[0], members[1], *members[4:]])
    with pytest.raises(DataError, match=r"another member is in its place.*in t\. Build the index"):
        list(read_rows(built, built.examples))


def test_a_shard_that_is_gone_is_an_error(index, folder, tmp_path):
    bad = changed(index, folder, tmp_path, lambda data: data)
    os.remove(bad.shards["url"][2].as_py())
    with pytest.raises(FileNotFoundError):
        list(read_rows(bad, bad.examples))


@pytest.fixture(params=["one after the other", "several at once"])
def one_shard_ahead(request, monkeypatch):
    """Both ways to read several shards of a server; of the second, one request at a time."""
    if request.param == "one after the other":
        monkeypatch.setattr(reading, "_LITTLE_BYTES", 0)
    else:
        monkeypatch.setattr(reading, "_IN_FLIGHT", 1)


def test_a_server_killed_and_started_in_the_middle(s3_env, s3_index, oracle, monkeypatch):
    """All examples come, though the server was away between two of them."""
    monkeypatch.setattr(reading, "_IN_FLIGHT", 1)  # so that not all of them are here before
    found = []
    restart = threading.Thread(target=s3_env.start)
    for one in read_rows(s3_index, s3_index.examples):
        if len(found) == PER_SHARD + 5:
            s3_env.kill()
            restart.start()
        found.append(one)
    restart.join()
    assert as_dict(found) == oracle


@pytest.mark.usefixtures("one_shard_ahead")
def test_a_server_that_stays_away_ends_the_read_with_an_error(s3_index, monkeypatch):
    """Not with fewer examples."""
    monkeypatch.setattr(s3, "RETRY_S", 0.2)
    read = read_rows(s3_index, s3_index.examples)
    next(read)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(IncompleteError, match="storage must answer"):
        list(read)


class SeenClient:
    """Stands in for a client of S3: notes what is asked of it, and may act around it."""

    def __init__(self, around=None):
        self.real, self.around = s3_versions.client(), around or (lambda get: get())
        self.ranges, self.heads = [], []

    def get_object(self, **request):
        start, end = request["Range"].removeprefix("bytes=").split("-")
        self.ranges.append(int(end) + 1 - int(start))
        return self.around(functools.partial(self.real.get_object, **request))

    def head_object(self, **request):
        self.heads.append(request["Key"])
        return self.real.head_object(**request)

    def put_object(self, **request):
        return self.real.put_object(**request)


def seen(monkeypatch, **settings):
    client = SeenClient(**settings)
    for module in (s3, s3_versions):
        monkeypatch.setattr(module, "client", lambda: client)
    return client


def test_little_of_many_shards_is_asked_for_at_once_and_of_none_its_state(
    s3_index, index, monkeypatch
):
    """No shard's images come before every shard was asked; each answer tells size and version."""
    together = threading.Barrier(NUM_SHARDS, timeout=20)
    client = seen(monkeypatch, around=lambda get: (together.wait(), get())[1])
    few = [5, PER_SHARD + 7, 2 * PER_SHARD + 11]
    found = list(read_rows(s3_index, s3_index.examples.take(few)))
    assert found == list(read_rows(index, index.examples.take(few)))
    assert (len(client.ranges), client.heads) == (NUM_SHARDS, [])


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_shard_that_is_replaced_while_it_is_read_is_an_error(s3_index, monkeypatch, in_flight):
    """By another of the same size, after the first answer; the next was asked for, or was not."""
    monkeypatch.setattr(reading, "_IN_FLIGHT", in_flight)
    monkeypatch.setattr(reading, "cost_of", lambda url: StorageCost(0.0, 1.0))  # two requests
    url = s3_index.shards["url"][1].as_py()
    content, answered = files.read_bytes(url), threading.Event()
    together, numbers = threading.Barrier(in_flight, timeout=20), itertools.count()

    def around(get):
        number = next(numbers)
        together.wait()
        if number:
            assert answered.wait(20)
            files.write_bytes(url, content[:-1] + b"\1")
        answer = get()
        answered.set()
        return answer

    client = seen(monkeypatch, around=around)
    part = s3_index.examples.slice(PER_SHARD, PER_SHARD).take([2, 38])
    with pytest.raises(IncompleteError, match=r"must not change .*train-1"):
        list(read_rows(s3_index, part))
    assert len(client.ranges) == 2


@pytest.mark.parametrize("num_bytes", [0, 700, 20_000, -1])
def test_a_shard_of_another_size_on_s3_is_not_as_it_was_indexed(s3_index, num_bytes):
    """Also where the request begins beyond its new end; -1 stands for one that has grown."""
    url = s3_index.shards["url"][1].as_py()
    content = files.read_bytes(url)
    files.write_bytes(url, content[:num_bytes] if num_bytes >= 0 else content + bytes(512))
    for rows in (s3_index.examples, s3_index.examples.slice(2 * PER_SHARD - 1, 1)):
        with pytest.raises(DataError, match=r"must be as it was .* bytes instead of .*train-1\."):
            list(read_rows(s3_index, rows))


def test_few_examples_move_few_bytes_over_the_network(s3_index, monkeypatch):
    """What is asked of the server for one example is that example and its header."""
    client = seen(monkeypatch)
    rows = s3_index.examples.slice(17, 1)
    list(read_rows(s3_index, rows))
    assert client.ranges == [rows["size"][0].as_py() + reading.HEADER_BYTES]
