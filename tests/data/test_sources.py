"""Each source holds what torchvision reads from the same files: counts, labels, pixels."""

import hashlib
import io
import pickle
import struct

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from raygrad.data.sources import SOURCES, check_source
from raygrad.errors import ConfigError, DataError
from tests.data.making import jpeg, png


def pixels(example):
    return np.asarray(Image.open(io.BytesIO(example.image)))


def put(root, name, content):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 8)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        head = struct.pack(">IIII", 2051, count, 28, 28)
        put(tmp_path, f"MNIST/raw/{part}-images-idx3-ubyte", head + images.tobytes())
        put(
            tmp_path,
            f"MNIST/raw/{part}-labels-idx1-ubyte",
            struct.pack(">II", 2049, count) + labels.tobytes(),
        )
    return tmp_path


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    """A made copy of CIFAR in the files that torchvision reads."""
    kind = getattr(torchvision.datasets, request.param.upper())
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    label_name = "labels" if request.param == "cifar10" else "fine_labels"
    rng = np.random.default_rng(0)
    for name, _ in [*kind.train_list, *kind.test_list]:
        data = rng.integers(0, 256, (7, 3072), np.uint8)
        batch = {"data": data, label_name: rng.integers(0, 10, 7).tolist()}
        put(tmp_path, f"{kind.base_folder}/{name}", pickle.dumps(batch))
    names = {kind.meta["key"]: [f"c{n}" for n in range(10)]}
    put(tmp_path, f"{kind.base_folder}/{kind.meta['filename']}", pickle.dumps(names))
    return request.param, kind, tmp_path


def assert_same(examples, dataset):
    assert len(examples) == len(dataset)
    for example, (image, label) in zip(examples, dataset, strict=True):
        np.testing.assert_array_equal(pixels(example), np.asarray(image))
        assert example.label == label


def test_digits_is_scikit_learns(tmp_path):
    source = SOURCES["digits"](None)
    assert (len(source.train), len(source.test), source.channels) == (1437, 360, 1)
    keys = [*source.train.keys(), *source.test.keys()]
    assert len(set(keys)) == 1797
    counts = np.bincount([example.label for example in source.test])
    assert counts.min() >= 35  # a stratified fifth


def test_mnist_is_torchvisions(mnist):
    source = SOURCES["mnist"](str(mnist))
    for split, train in ((source.train, True), (source.test, False)):
        assert_same(split, torchvision.datasets.MNIST(mnist, train))
    assert source.classes == tuple("0123456789")


def test_cifar_is_torchvisions(cifar):
    name, kind, root = cifar
    source = SOURCES[name](str(root))
    for split, train in ((source.train, True), (source.test, False)):
        assert_same(split, kind(root, train))
    assert source.classes == tuple(f"c{n}" for n in range(10))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_a_data_set_that_is_not_there_says_how_to_get_it(name, tmp_path):
    with pytest.raises(ConfigError, match="--download"):
        SOURCES[name](str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "image-folder", "imagenet"])
def test_a_source_of_files_needs_a_folder(name):
    with pytest.raises(ConfigError, match="--data-dir"):
        SOURCES[name](None)


@pytest.fixture
def folders(tmp_path):
    at = 0
    for split, count in (("train", 4), ("val", 2)):
        for name in ("dog", "ant", "Cat"):
            for number in range(count):
                put(
                    tmp_path,
                    f"{split}/{name}/{number}.{'JPEG' if number % 2 else 'png'}",
                    jpeg(at) if number % 2 else png(at),
                )
                at += 1
            put(tmp_path, f"{split}/{name}/Thumbs.db", b"x")
    put(tmp_path, "train/ant/deeper/9.jpg", jpeg(99))
    return tmp_path


def test_an_image_folder_is_torchvisions_and_its_bytes_are_copied(folders):
    source = SOURCES["image-folder"](str(folders))
    for split, name in ((source.train, "train"), (source.test, "val")):
        dataset = torchvision.datasets.ImageFolder(folders / name)
        assert list(source.classes) == dataset.classes
        assert [example.label for example in split] == dataset.targets
        for example, (path, _) in zip(split, dataset.samples, strict=True):
            with open(path, "rb") as stream:
                assert example.image == stream.read()


def test_keys_of_files_say_split_class_and_name_and_are_unique(folders):
    put(folders, "train/ant/a.b.jpg", jpeg())
    put(folders, "train/ant/a%2Eb.jpg", jpeg())
    put(folders, "train/ant/0.jpg", jpeg())  # beside 0.png
    keys = list(SOURCES["image-folder"](str(folders)).train.keys())
    assert len(set(keys)) == len(keys) == 16
    assert {"train/ant/a%2Eb", "train/ant/a%252Eb", "train/ant/0%2Ejpg", "train/ant/0%2Epng"} < set(
        keys
    )
    assert {"train/dog/1", "train/ant/deeper/9"} < set(keys)


def test_a_file_name_that_is_not_utf8_gets_a_key_that_is(folders):
    put(folders, "train/ant/x\udcff.jpg", jpeg())
    keys = list(SOURCES["image-folder"](str(folders)).train.keys())
    assert "train/ant/x%FF" in keys


@pytest.mark.parametrize(
    ("add", "says"),
    [
        ("val/new/x.jpg", "must be a folder of train"),
        ("train/none/x.txt", "must have a file"),
    ],
)
def test_a_folder_that_would_lose_examples_is_refused(folders, add, says):
    put(folders, add, b"x")
    with pytest.raises(ConfigError, match=says):
        SOURCES["image-folder"](str(folders))


@pytest.mark.parametrize("content", [{}, {"0.jpg": jpeg()}, {".hidden/0.jpg": jpeg()}])
def test_a_root_without_class_folders_is_refused(tmp_path, content):
    for name, data in content.items():
        put(tmp_path, name, data)
    with pytest.raises(ConfigError, match="folder of class folders"):
        SOURCES["image-folder"](str(tmp_path))


WNIDS = ("n01440764", "n02102040", "n03000684")
TRUTH = (2, 0, 1, 1, 0)
"""Classes of the validation files, in order."""


@pytest.fixture
def imagenet(tmp_path):
    for label, wnid in enumerate(WNIDS):
        for number in range(3):
            put(tmp_path, f"train/{wnid}/{wnid}_{number}.JPEG", jpeg(10 * label + number))
    return tmp_path


def flat_val(root):
    for number in range(len(TRUTH)):
        put(root, f"val/ILSVRC2012_val_{number + 1:08d}.JPEG", jpeg(number))


def with_devkit(root):
    flat_val(root)
    data = root / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    ids = {0: 7, 1: 3, 2: 5}  # ILSVRC2012_ID is not the sorted order
    synsets = np.array(
        [(ids[label], wnid, "words", 0) for label, wnid in enumerate(WNIDS)],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")],
    )
    savemat(data / "meta.mat", {"synsets": synsets})
    lines = "\n".join(str(ids[label]) for label in TRUTH)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(lines + "\n")


def with_list(root):
    flat_val(root)
    lines = "\n".join(WNIDS[label] for label in TRUTH)
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(lines + "\n")


def in_folders(root):
    for number, label in enumerate(TRUTH):
        put(root, f"val/{WNIDS[label]}/ILSVRC2012_val_{number + 1:08d}.JPEG", jpeg(number))


@pytest.mark.parametrize("layout", [with_devkit, with_list, in_folders])
def test_imagenet_has_its_published_keys_and_the_validation_set_as_test(imagenet, layout):
    layout(imagenet)
    source = SOURCES["imagenet"](str(imagenet))
    assert source.classes == WNIDS
    found = {e.key: (e.label, hashlib.sha256(e.image).hexdigest()) for e in source.test}
    assert found == {
        f"ILSVRC2012_val_{n + 1:08d}": (label, hashlib.sha256(jpeg(n)).hexdigest())
        for n, label in enumerate(TRUTH)
    }
    assert_same(source.train, torchvision.datasets.ImageFolder(imagenet / "train"))
    assert source.train.keys()[0] == "n01440764_0"


def test_a_flat_validation_set_without_labels_is_refused(imagenet):
    flat_val(imagenet)
    with pytest.raises(ConfigError, match="labels beside it"):
        SOURCES["imagenet"](str(imagenet))


def test_a_validation_set_that_lacks_a_file_is_refused(imagenet):
    with_list(imagenet)
    (imagenet / "val/ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(ConfigError, match="4 files and 5 labels"):
        SOURCES["imagenet"](str(imagenet))


def test_one_file_name_in_two_classes_is_refused(imagenet):
    in_folders(imagenet)
    put(imagenet, f"train/{WNIDS[1]}/{WNIDS[0]}_0.JPEG", jpeg())
    with pytest.raises(DataError, match=r"n01440764_0.* twice"):
        SOURCES["imagenet"](str(imagenet))


def test_a_set_that_was_cut_gives_the_examples_asked_for(folders, mnist):
    for split in (SOURCES["image-folder"](str(folders)).train, SOURCES["mnist"](str(mnist)).train):
        everything = list(split)
        cut = split.take(np.array([5, 0, 3]))
        assert list(cut) == [everything[at] for at in (5, 0, 3)]
        assert cut.keys() is not split.keys()
        assert list(cut.keys()) == [example.key for example in cut]
        assert cut.fingerprint() != split.fingerprint()


def test_an_unknown_source_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'image-folder'"):
        check_source("image_folder")
