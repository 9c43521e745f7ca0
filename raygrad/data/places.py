"""What a user names as data: shards, or a folder or table that is to be written as shards first."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raygrad.data.data_files import TABLE_OR_TAR, TAR, data_files, left_out
from raygrad.data.image_folders import hashed_share, split_folders
from raygrad.data.imagenet import is_imagenet
from raygrad.data.sources import SOURCES, HeldOut, Source
from raygrad.data.split_names import split_of, split_of_path
from raygrad.data.table_examples import table_splits
from raygrad.data.table_files import ENDINGS as TABLE_ENDINGS
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.urls import expand

_HUB = re.compile(r"hf://datasets/[^/@]+/[^/@]+/?")
_NO_DATA = re.compile(
    r"\.(zip|7z|rar|jpe?g|png|gif|webp|bmp|tiff?|txt|csv|tsv|jsonl?|np[yz]|pkl|pickle|h5|hdf5|mat|"
    r"lmdb|tfrecords?|pth?|safetensors)$",
    re.IGNORECASE,
)
"""Endings of files that people name and that are neither tars nor tables."""
_CLASS_NAMES = "classnames.txt"
_ARROW_CACHE = re.compile(r"/(cache-|tmp)[^/]*\.arrow$")
"""What `datasets` keeps of a map or filter beside the data that it saved."""
_IMG2DATASET = re.compile(r"\d+_stats\.json")


@dataclass(frozen=True)
class Data:
    """What was named, resolved."""

    train_urls: tuple[str, ...] = ()
    """Shards of training examples, used as they are."""
    test_urls: tuple[str, ...] = ()
    """Shards of test examples."""
    classes: tuple[str, ...] = ()
    """The names of the classes, where a file beside the shards has them."""
    source: Source | None = None
    """What is to be written as shards, in place of the URLs."""
    name: str = ""
    """What the source is called."""
    notes: tuple[str, ...] = ()
    """What was decided for the user: a line each."""


@dataclass(frozen=True)
class TableOptions:
    """How tables are read."""

    image: str = ""
    """The column of the images."""
    label: str = ""
    """The column of the labels."""
    renumber: bool = False
    """Number classes anew."""


def resolve(
    train: Sequence[str], test: Sequence[str], *, held_out: HeldOut, options: TableOptions
) -> Data:
    """Returns what the user's names stand for.

    Args:
        train: Patterns of shards or tables, or one folder.
        test: Patterns of test shards or tables, or a folder of them.
        held_out: The test split of folders and tables that have none.
        options: How tables are read.

    Raises:
        ConfigError: Something is not there, or is nothing that can be read.
    """
    urls = expand(train)
    test_urls = expand(test) if test else []
    folders = [url for url in urls if _is_folder(url)]
    if folders and (len(urls) > 1 or not test):
        if len(urls) > 1:
            raise ConfigError(
                f"a folder of data must be named alone, got {len(urls)} names, one of them the "
                f"folder {folders[0]}. Name one folder, or the files."
            )
        return _folder(files.absolute(folders[0]), held_out, options)
    for url in (*urls, *test_urls):
        if _NO_DATA.search(url):
            raise ConfigError(
                f"data must be tars, Parquet files, or a folder of them or of class folders, got "
                f"{url}. Unpack or convert it, and name the folder."
            )
    named = folders[0] if folders else ""
    urls, test_urls = _inside(urls), _inside(test_urls)
    if any(url.lower().endswith(TABLE_ENDINGS) for url in urls):
        return _tables(urls, test_urls, held_out, options)
    return Data(_absolute(urls), _absolute(test_urls), notes=_split_notes(urls, named))


def _folder(folder: str, held_out: HeldOut, options: TableOptions) -> Data:
    if files.is_local(folder) and (is_imagenet(folder) or _has_split_folders(folder)):
        return _images(folder, held_out)
    tars = data_files(folder, TAR)
    if tars:
        train, test, notes = _by_split(tars, folder)
        notes = (*notes, *_folder_notes(folder, tars, "shards"))
        return Data(_absolute(train), _absolute(test), _class_names(folder), notes=notes)
    tables = _tables_of(folder)
    if tables:
        train, test, notes = _by_split(tables, folder)
        notes = (*notes, *_folder_notes(folder, tables, "tables"))
        return _tables(train, test, held_out, options, notes)
    if not files.is_local(folder):
        raise ConfigError(
            f"a folder in a store must hold tars or Parquet files, got {folder}. Folders of images "
            "are read on a local disk: fetch them, or write shards: raygrad prepare --out."
        )
    if data_files(folder, _IMG2DATASET):
        raise ConfigError(
            f"a folder of classes must be named, got img2dataset's files in {folder}, whose "
            "folders are no classes. Fetch them again with --output_format webdataset."
        )
    return _images(folder, held_out)


def _images(folder: str, held_out: HeldOut) -> Data:
    source = SOURCES["image-folder"](folder, held_out=held_out)
    return Data(source=source, name="image-folder")


def _has_split_folders(folder: str) -> bool:
    """Tells whether a local folder has class folders for training, whatever lies beside them."""
    try:
        train, _, _ = split_folders(Path(folder))
    except ConfigError:  # of class folders; what holds tars or tables is none of them
        return False
    return train != "" and not data_files(os.path.join(folder, train), TABLE_OR_TAR)


def _tables_of(folder: str) -> list[str]:
    """Returns the tables in a folder; of a data set on the Hub without any, those made there."""
    pattern = re.compile("|".join(re.escape(one) + "$" for one in TABLE_ENDINGS), re.IGNORECASE)
    found = [one for one in data_files(folder, pattern) if not _ARROW_CACHE.search(one)]
    if not found and _HUB.fullmatch(folder):
        found = data_files(folder.rstrip("/") + "@~parquet", pattern)
    folders = {re.sub(r"[^/]*$", "", url.removeprefix(folder)) for url in found}
    kinds = {"/".join(p for p in one.split("/") if not split_of(p)) for one in folders}
    if len(kinds) > 1:
        raise ConfigError(
            f"a folder must hold one data set, got tables in {sorted(kinds)[:4]} of {folder}. "
            "Name one of these folders."
        )
    return found


def _by_split(urls: Sequence[str], folder: str) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Returns training and test files, and what was decided.

    Validation is the test split where there is no other.

    Raises:
        ConfigError: Nothing is of the training split.
    """
    found: dict[str, list[str]] = {"train": [], "test": [], "val": [], "": []}
    for url in urls:
        found[split_of_path(_below(folder, url))].append(url)
    train = found["train"] or found[""]
    if not train:
        raise ConfigError(
            f"a folder of data must hold training files, got only those of "
            f"{', '.join(name for name, some in found.items() if some)} in {folder}. "
            "Name the files that you want."
        )
    if found["train"] and found[""]:
        raise ConfigError(
            f"files of a folder with splits must each be of one, got {found[''][0]} of none. "
            "Name the files that you want."
        )
    notes: tuple[str, ...] = ()
    if found["test"] and found["val"]:
        notes = (f"test is the test split; {len(found['val'])} files of val are left out",)
    return train, found["test"] or found["val"], notes


def _below(folder: str, url: str) -> list[str]:
    """Returns the parts of a URL below a folder; of a file that was named itself its name."""
    if not url.startswith(folder.rstrip("/") + "/"):
        return [url.rsplit("/", 1)[-1]]
    return url.removeprefix(folder).strip("/").split("/")


def _split_notes(urls: Sequence[str], folder: str) -> tuple[str, ...]:
    """Returns what to say of training shards whose names say that they are of another split.

    Args:
        urls: The shards.
        folder: The folder that was named for them, nothing where they were named themselves.
    """
    splits = [
        split_of_path(_below(folder, url) if folder else [url.rsplit("/", 1)[-1]]) for url in urls
    ]
    others = [url for url, split in zip(urls, splits, strict=True) if split in ("test", "val")]
    if not others or "train" not in splits:
        return ()
    return (
        f"{len(others)} of {len(urls)} training shards are called by another split, such as "
        f"{others[0]}: they are trained on, unless --test-tars names them instead",
    )


def _folder_notes(folder: str, used: Sequence[str], what: str) -> tuple[str, ...]:
    """Returns what to say of what else lies in the folder, such as folders of images."""
    others = left_out(folder, used)
    if not others:
        return ()
    return (f"beside the {what} {len(others)} files and folders are left out, such as {others[0]}",)


def _tables(
    train: Sequence[str],
    test: Sequence[str],
    held_out: HeldOut,
    options: TableOptions,
    said: tuple[str, ...] = (),
) -> Data:
    found = table_splits(
        _absolute(train),
        _absolute(test),
        image=options.image,
        label=options.label,
        renumber=options.renumber,
    )
    train_set, test_set = found.train, found.test
    notes = [*said, *found.numbering.notes]
    if not test and held_out.fraction:
        is_test = hashed_share(train_set.keys(), held_out.fraction, held_out.seed)
        test_set = train_set.take(np.flatnonzero(is_test))
        train_set = train_set.take(np.flatnonzero(~is_test))
        notes.append(
            f"no table of test examples: {is_test.sum()} of {len(is_test)}, chosen by a hash of "
            "their keys, are the test split"
        )
    if found.rejects:
        notes.append(f"{len(found.rejects)} rows stand in the rejects: {found.rejects[0][1]}, ...")
    source = Source(
        train_set,
        test_set,
        found.numbering.names,
        channels=3,
        rejects=found.rejects,
        num_lost=len(found.rejects),
        notes=tuple(notes),
    )
    return Data(source=source, name="tables")


def _class_names(folder: str) -> tuple[str, ...]:
    """Returns the names of the classes, a line each, of CLIP-benchmark's file of them."""
    url = files.join(folder, _CLASS_NAMES)
    if files.is_page(url) or not files.is_file(url):
        return ()
    lines = files.read_bytes(url).decode(errors="backslashreplace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _is_folder(url: str) -> bool:
    """Tells whether a URL is a folder; a store is not asked about what is named as a data file.

    Of a hundred thousand shards on S3 those questions alone would take an hour.
    """
    if not files.is_local(url) and TABLE_OR_TAR.search(url):
        return False
    return files.is_folder(url)


def _inside(urls: Sequence[str]) -> list[str]:
    """Returns URLs with the tars or tables of a folder in the place of the folder."""
    found = []
    for url in urls:
        inner = data_files(url, TABLE_OR_TAR) if _is_folder(url) else [url]
        if not inner:
            raise ConfigError(f"a folder of shards must hold tars, got none in {url}.")
        found += inner
    return found


def _absolute(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(files.absolute(url) for url in urls)
