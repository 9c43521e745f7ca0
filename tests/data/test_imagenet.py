"""ImageNet's layouts: labels by the names of files, whatever order a table has."""

import io
import tarfile

import numpy as np
import pytest

from raygrad.data.imagenet import is_imagenet
from raygrad.data.sources import SOURCES
from raygrad.errors import ConfigError, DataError
from tests.data.making import BLOCK, jpeg, tar
from tests.data.test_sources import TRUTH, WNIDS, flat_val, imagenet, put, with_devkit, with_list

__all__ = ["imagenet"]  # a fixture

NAMES = [f"ILSVRC2012_val_{n + 1:08d}" for n in range(len(TRUTH))]
WANTED = {name: WNIDS[label] for name, label in zip(NAMES, TRUTH, strict=True)}


def labels(source):
    return {e.key: source.classes[e.label] for e in source.test}


def kaggle(root):
    """The table in an order that is not the names', as Kaggle's is."""
    flat_val(root)
    rows = sorted(WANTED.items(), key=lambda row: row[1][::-1] + row[0][::-1])
    lines = "".join(f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for name, wnid in rows)
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + lines)


def caffe_numbers(root):
    flat_val(root)
    rows = zip(reversed(NAMES), reversed(TRUTH), strict=True)
    (root / "val.txt").write_text("".join(f"{name}.JPEG {label}\n" for name, label in rows))


def caffe_wnids(root):
    flat_val(root)
    lines = "".join(f"val/{name}.JPEG {wnid}\n" for name, wnid in reversed(WANTED.items()))
    (root / "val.txt").write_text(lines)


def caffe_synsets(root):
    """Numbers count the lines of synsets.txt, which are more than train has, in their order."""
    flat_val(root)
    synsets = ["n09", *reversed(WNIDS)]
    (root / "synsets.txt").write_text("\n".join(synsets))
    lines = "".join(f"{name}.JPEG {synsets.index(wnid)}\n" for name, wnid in WANTED.items())
    (root / "val.txt").write_text(lines)


@pytest.mark.parametrize("layout", [kaggle, caffe_numbers, caffe_wnids, caffe_synsets])
def test_labels_go_by_the_names_of_files(imagenet, layout):
    layout(imagenet)
    source = SOURCES["imagenet"](str(imagenet))
    assert labels(source) == WANTED
    assert is_imagenet(str(imagenet))
    assert labels(SOURCES["image-folder"](str(imagenet))) == WANTED
    assert any("labels are those of" in note for note in source.notes)


@pytest.mark.parametrize("order", [with_list, with_devkit])
def test_a_table_with_names_goes_before_a_list_in_an_order(imagenet, order):
    """The list could be cut from the table: its rows are not in the order of the names."""
    order(imagenet)
    for path in imagenet.glob("*labels.txt"):
        path.write_text("\n".join(reversed(path.read_text().split())))
    kaggle(imagenet)
    assert labels(SOURCES["imagenet"](str(imagenet))) == WANTED


@pytest.mark.parametrize("given", ["", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_archive_is_read_from_its_own_folder_or_from_the_images(tmp_path, given):
    top = tmp_path / "ILSVRC/Data/CLS-LOC"
    for label, wnid in enumerate(WNIDS):
        put(top, f"train/{wnid}/{wnid}_0.JPEG", jpeg(label))
    kaggle(top)
    (top / "LOC_val_solution.csv").rename(tmp_path / "LOC_val_solution.csv")
    put(top, "test/ILSVRC2012_test_00000001.JPEG", jpeg())
    source = SOURCES["imagenet"](str(tmp_path / given))
    assert labels(source) == WANTED
    assert "folders that are no split are left out: test" in source.notes
    assert len(source.train) == 3


def test_a_file_without_a_row_is_a_reject(imagenet):
    kaggle(imagenet)
    put(imagenet, "val/ILSVRC2012_val_00000099.JPEG", jpeg())
    source = SOURCES["imagenet"](str(imagenet))
    assert labels(source) == WANTED
    assert source.rejects == (
        (
            "val/ILSVRC2012_val_00000099.JPEG",
            "no label: LOC_val_solution.csv has no row of it",
        ),
    )
    assert source.num_lost == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("LOC_val_solution.csv", "ImageId,PredictionString\nx\n", "must hold ImageId"),
        ("val_annotations.txt", "x n01\n", "must hold file name, tab"),
        ("val.txt", "x.JPEG 1 2\n", "must hold file name, space"),
        ("val.txt", "x.JPEG 900\n", "synsets.txt"),
        ("val.txt", "ILSVRC2012_val_00000001.JPEG n99\n", "must be in train"),
        ("val.txt", "x.JPEG n01\nx.JPEG n02\n", "must have one label, got n01 and n02 for x"),
        ("val_annotations.txt", "x.JPEG\tn01\nx.JPEG\tn02\n", "must have one label"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(imagenet, name, text, says):
    flat_val(imagenet)
    (imagenet / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        SOURCES["imagenet"](str(imagenet))


def test_rows_without_their_files_and_hidden_folders_of_val_are_passed_over_and_said(imagenet):
    kaggle(imagenet)
    (imagenet / "val" / f"{NAMES[1]}.JPEG").unlink()
    put(imagenet, "val/.ipynb_checkpoints/x.JPEG", jpeg())
    put(imagenet, "val/__MACOSX/._x.JPEG", b"x")
    assert is_imagenet(str(imagenet))
    source = SOURCES["imagenet"](str(imagenet))
    assert labels(source) == {name: WANTED[name] for name in NAMES if name != NAMES[1]}
    assert f"val: 1 files of that table are not there, such as {NAMES[1]}" in source.notes


def test_tiny_imagenet_is_read_as_it_is_published(tmp_path):
    for label, wnid in enumerate(WNIDS):
        for at in range(2):
            put(tmp_path, f"train/{wnid}/images/{wnid}_{at}.JPEG", jpeg(10 * label + at))
        put(tmp_path, f"train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t9\t9\n".encode())
    lines = []
    for at, label in enumerate(TRUTH):
        put(tmp_path, f"val/images/val_{at}.JPEG", jpeg(at))
        lines.append(f"val_{at}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n")
    put(tmp_path, "val/val_annotations.txt", "".join(reversed(lines)).encode())
    put(tmp_path, "test/images/test_0.JPEG", jpeg())
    put(tmp_path, "wnids.txt", "\n".join(WNIDS).encode())
    for name in ("imagenet", "image-folder"):
        source = SOURCES[name](str(tmp_path))
        assert source.classes == WNIDS
        assert len(source.train) == 6
        assert labels(source) == {f"val_{n}": WNIDS[label] for n, label in enumerate(TRUTH)}
        assert source.num_lost == 0


def class_tars(number=3):
    return {
        wnid: tar([(f"{wnid}_{at}.JPEG", jpeg(10 * label + at)) for at in range(number)])
        for label, wnid in enumerate(WNIDS)
    }


def in_one_tar(root):
    members = [(f"{wnid}.tar", content) for wnid, content in class_tars().items()]
    put(root, "ILSVRC2012_img_train.tar", tar(members))


def in_class_tars(root):
    for wnid, content in class_tars().items():
        put(root, f"train/{wnid}.tar", content)


@pytest.mark.parametrize("training", [in_one_tar, in_class_tars])
def test_the_published_tars_are_read_without_unpacking(tmp_path, training):
    training(tmp_path)
    put(
        tmp_path,
        "ILSVRC2012_img_val.tar",
        tar([(f"{n}.JPEG", jpeg(at)) for at, n in enumerate(NAMES)]),
    )
    kaggle(tmp_path)
    for path in (tmp_path / "val").iterdir():
        path.unlink()
    (tmp_path / "val").rmdir()
    assert is_imagenet(str(tmp_path))
    source = SOURCES["imagenet"](str(tmp_path))
    assert {e.key: (source.classes[e.label], e.image) for e in source.train} == {
        f"{wnid}_{at}": (wnid, jpeg(10 * label + at))
        for label, wnid in enumerate(WNIDS)
        for at in range(3)
    }
    assert labels(source) == WANTED
    assert [e.image for e in source.test] == [jpeg(at) for at in range(len(NAMES))]
    cut = source.train.take(np.array([5, 1]))
    assert [e.key for e in cut] == [source.train.keys()[at] for at in (5, 1)]
    assert [e.image for e in cut] == [jpeg(12), jpeg(1)]


def test_a_class_tar_that_is_cut_is_refused_by_name(tmp_path):
    in_class_tars(tmp_path)
    content = class_tars()[WNIDS[1]]
    put(tmp_path, f"train/{WNIDS[1]}.tar", content[: tarfile.BLOCKSIZE * 4 + 100])
    flat_val(tmp_path)
    with pytest.raises(DataError, match=rf"{WNIDS[1]}\.tar"):
        SOURCES["imagenet"](str(tmp_path))


def third(content):
    """Returns where the header of the third member begins."""
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        return members.getmembers()[2].offset


DAMAGE = {
    "cut between members": lambda content: content[: third(content)],
    "a broken header": lambda content: (
        content[: (at := third(content))] + b"\x9c" * BLOCK + content[at + BLOCK :]
    ),
    "zeros to the end": lambda content: content[: third(content)].ljust(len(content), b"\0"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("inside", [False, True])
def test_a_damaged_tar_of_a_class_is_refused_wherever_it_is(tmp_path, damage, inside):
    """Tarfile itself stops without a word."""
    tars = class_tars(15)
    tars[WNIDS[1]] = DAMAGE[damage](tars[WNIDS[1]])
    if inside:
        put(tmp_path, "ILSVRC2012_img_train.tar", tar([(f"{n}.tar", c) for n, c in tars.items()]))
    else:
        for wnid, content in tars.items():
            put(tmp_path, f"train/{wnid}.tar", content)
    kaggle(tmp_path)
    with pytest.raises(DataError, match=rf"a tar must be whole.*{WNIDS[1]}\.tar"):
        SOURCES["imagenet"](str(tmp_path))


@pytest.mark.parametrize("order", [1, -1])
def test_classes_whose_names_are_numbers_are_named_by_val_txt_and_not_counted(tmp_path, order):
    """Folders 0 to 11 sort as 0, 1, 10, 11, 2: the number 2 is no place among them."""
    names = [str(at) for at in range(12)]
    for name in names:
        put(tmp_path, f"train/{name}/{name}_x.png", jpeg(int(name)))
        put(tmp_path, f"val/v{name}.png", jpeg(int(name)))
    lines = [f"v{name}.png {name}\n" for name in names[::order]]
    (tmp_path / "val.txt").write_text("".join(lines))
    source = SOURCES["image-folder"](str(tmp_path))
    assert labels(source) == {f"v{name}": name for name in names}
    (tmp_path / "val.txt").write_text("".join([*lines, "v99.png 12\n"]))
    with pytest.raises(ConfigError, match="could be names of classes and count them"):
        SOURCES["image-folder"](str(tmp_path))


def test_class_tars_that_are_unpacked_in_part_are_refused_by_name(tmp_path):
    in_class_tars(tmp_path)
    kaggle(tmp_path)
    (tmp_path / "train" / WNIDS[0]).mkdir()  # unpacked, the tar is still there
    put(tmp_path, "train/notes.txt", b"x")
    put(tmp_path, "train/.DS_Store", b"x")
    source = SOURCES["imagenet"](str(tmp_path))
    assert source.rejects == (("train/notes.txt", "no tar of a class"),)
    assert f"1 classes are tars and folders, such as {WNIDS[0]}: the tars are read" in source.notes
    (tmp_path / "train" / f"{WNIDS[0]}.tar").unlink()
    with pytest.raises(ConfigError, match=f"got 2 tars and the folder {WNIDS[0]}, which has none"):
        SOURCES["imagenet"](str(tmp_path))


def test_an_ordinary_folder_is_no_imagenet(tmp_path):
    for split in ("train", "val"):
        put(tmp_path, f"{split}/a/{split}.jpg", jpeg())
    assert not is_imagenet(str(tmp_path))
    assert not is_imagenet(str(tmp_path / "train"))
