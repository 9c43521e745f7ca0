"""The section data: which data set, and how it is cut into shards and splits."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from raygrad.config.declaring import BASIC, EXECUTION, positive, require
from raygrad.config.nodes import check_nodes


@dataclass(frozen=True)
class DataConfig:
    """Which data set, and how it is cut into shards and splits."""

    source: tyro.conf.Positional[str] = field(default="digits", metadata=BASIC)
    """Where the examples come from; `raygrad prepare --help` lists the sources."""
    data_dir: str | None = field(default=None, metadata=EXECUTION | BASIC)
    """The folder that holds the source's own files; not needed for digits."""
    download: bool = field(default=False, metadata=EXECUTION)
    """Fetch the source's files into data_dir if they are not there (mnist, cifar10, cifar100)."""
    tars: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--data",))] = field(
        default=(), metadata=BASIC
    )
    """Your own data instead of a source: shards, used as they are, as URLs with braces or globs,
    such as `s3://bucket/train-{0000..1023}.tar`; or a folder of shards, of Parquet files or of
    class folders; or Parquet files."""
    test_tars: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--test-data",))] = field(
        default=(), metadata=BASIC
    )
    """Your own test shards."""
    labels: str = field(default="cls", metadata=BASIC)
    """Where the labels of your own shards stand: a member's extension, such as cls or txt (numbers
    or class names), json:FIELD or json:a.b, folder (of the key), shard (the tar's name), or a
    table of keys or file names and labels, TABLE.csv or TABLE.parquet, with :KEY:LABEL for its
    columns. Of a Parquet data set: the column."""
    image: str = ""
    """Which member of an example is the image, by its extension, such as left.png, or which column
    of a Parquet data set; by default the one that is an image."""
    renumber: bool = False
    """Number the classes anew, from 0 and without gaps, where labels are numbers that count from 1
    or have gaps; their names are the numbers."""
    channels: Literal[1, 3] = 3
    """Colour channels that your own shards are decoded to; a source knows its own."""
    image_size: int | None = None
    """Photographs of several sizes become squares of this many pixels: both sides are scaled to
    8/7 of it and the centre is cut out (256 and 224 in the paper); by default they stay."""
    max_examples: int | None = field(default=None, metadata=BASIC)
    """At most so many training examples, and a quarter as many test examples, from the first
    shards: to try the whole way. Classes that are then without an example are left out."""
    max_reject_share: float = 0.01
    """The largest share of examples that may be unusable, in [0, 1]."""
    strict: bool = False
    """Fail on the first unusable example."""
    out: str | None = field(default=None, metadata=EXECUTION)
    """Where the shards are written; by default `<run>/data/shards`."""
    shard_bytes: int = 256 * 2**20
    """About how large a shard becomes, in bytes."""
    memory_bytes: int = field(default=4 * 2**30, metadata=EXECUTION)
    """Data sets that take up to this many bytes once they are decoded are held in memory, once a
    node; larger ones are decoded once a node into files in `cache_dir`, which processes map, or,
    where the disk has no room for them, streamed; see `train.data`."""
    cache_dir: str | None = field(default=None, metadata=EXECUTION)
    """A folder on each node's own disk; by default `raygrad-images` in its temporary folder. Each
    user has a folder within it; what is decoded shard by shard stays for later runs."""
    cache_bytes: int = field(default=0, metadata=EXECUTION)
    """At most so many bytes of decoded images are kept there, of all data sets: those that were
    used longest ago, and are not in use, go first. 0: as many as the disk holds."""
    nodes: tuple[str, ...] = field(default=(), metadata=EXECUTION)
    """Labels of the nodes that writing and indexing may stand on, NAME=VALUE, as Ray's label
    selectors: raygrad=index; by default on any."""
    val_fraction: float = 0.1
    """The share of the training examples held out for validation, chosen by a hash of the key."""
    test_fraction: float = 0.2
    """The share of the examples that is the test split, chosen by a hash of the key, where class
    folders or a table have no test split of their own."""
    split_seed: int = 0
    """Changes which examples are held out, and the order of examples over shards."""

    def __post_init__(self) -> None:
        positive("shard_bytes", self.shard_bytes)
        for name in ("memory_bytes", "cache_bytes"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0", getattr(self, name))
        for name in ("image_size", "max_examples"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        check_nodes(self.nodes)
        share = self.max_reject_share
        require(0 <= share <= 1, "max_reject_share must be in [0, 1]", share)
        require(0 <= self.val_fraction < 1, "val_fraction must be in [0, 1)", self.val_fraction)
        require(0 <= self.test_fraction < 1, "test_fraction must be in [0, 1)", self.test_fraction)
