"""The file of an example is the one that its user has: of the folder, else of the shard."""

import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from raygrad.cli import command as cli
from raygrad.config import DataConfig
from raygrad.data.file_names import file_names, folder_of
from raygrad.data.index import read_index
from raygrad.runs.layout import RunLayout
from tests.pipeline.making_runs import without_ray

FILES = {
    "cat/plain.png": "cat/plain.png",
    "cat/UPPER.JPEG": "cat/UPPER.jpeg",
    "cat/a.b.c.png": "cat/a%2Eb%2Ec.png",
    "cat/100%.png": "cat/100%25.png",
    "cat/twice.png": "cat/twice%2Epng.png",
    "cat/twice.JPG": "cat/twice%2EJPG.jpg",
    "Hünde 猫/bild ä 1.PNG": "Hünde 猫/bild ä 1.png",
    f"Hünde 猫/{'long-' * 30}name.png": f"Hünde 猫/{'long-' * 30}name.png",
    f"dog/{'x' * 120}.png": f"dog/{'x' * 120}.png",
    "dog/below/deep/one.Png": "dog/below/deep/one.png",
}
"""Files of a folder of classes, and how their shard has them."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of odd names, and the index of the run that was prepared of it."""
    root = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(0)
    for name in FILES:
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(path, kind)
    (root / "photos" / "cat" / "plain.txt").write_text("beside an image of the same stem")
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        assert cli.main(["prepare", str(root / "photos"), "--run", str(root / "run")]) == 0
    return root / "photos", read_index(RunLayout(str(root / "run")).data)


def test_files_of_a_folder_are_those_that_stand_there(prepared):
    folder, index = prepared
    found = file_names(index, index.examples, str(folder))
    assert sorted(found) == sorted(FILES)
    assert all((folder / name).is_file() for name in found)


def test_without_the_folder_files_are_those_of_the_shards_with_long_and_foreign_names(prepared):
    _, index = prepared
    assert sorted(file_names(index, index.examples)) == sorted(FILES.values())
    gone = file_names(index, index.examples, "/there/is/no/such/folder")
    assert sorted(gone) == sorted(FILES.values())


def test_a_file_that_is_gone_has_its_shards_name(prepared, tmp_path):
    folder, index = prepared
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "cat" / "UPPER.JPEG").unlink()
    found = file_names(index, index.examples, str(tmp_path / "copy"))
    assert sorted(found) == sorted([*set(FILES) - {"cat/UPPER.JPEG"}, "cat/UPPER.jpeg"])


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_shards_of_ones_own_in_any_format_give_whole_names(form, tmp_path):
    names = ["plain.png", "sub/" + "y" * 90 + ".png"]
    names += ["z" * 130 + ".png", "ü.png"] if form != tarfile.USTAR_FORMAT else []
    image = tmp_path / "image.png"
    Image.new("RGB", (4, 4)).save(image)
    (tmp_path / "label").write_text("0")
    with tarfile.open(tmp_path / "own.tar", "w", format=form) as tar:
        for name in names:
            tar.add(image, name)
            tar.add(tmp_path / "label", name.removesuffix("png") + "cls")
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        run = str(tmp_path / "run")
        assert cli.main(["index", str(tmp_path / "own.tar"), "--run", run]) == 0
    index = read_index(RunLayout(run).data)
    assert sorted(file_names(index, index.examples)) == sorted(names)


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        (DataConfig(tars=("photos",)), "photos"),
        (DataConfig(source="image-folder", data_dir="photos"), "photos"),
        (DataConfig(tars=("a.tar", "b.tar")), None),
        (DataConfig(tars=("s3://bucket/photos",)), None),
        (DataConfig(), None),
    ],
)
def test_the_folder_is_what_was_named_where_it_is_local(data, folder):
    found = folder_of(data)
    assert found is None if folder is None else str(found).endswith(folder)
