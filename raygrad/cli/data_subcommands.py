"""The subcommands that bring data in and out: prepare, index, export."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes

from raygrad import pipeline
from raygrad.api.carried import as_before
from raygrad.api.settings import existing, named_data, stored_or_new
from raygrad.cli.run_flags import Redo, Run, Wait, layout
from raygrad.config import DEFAULT_WAIT_S, DataConfig
from raygrad.errors import ConfigError


@dataclass(frozen=True)
class SourceFolder:
    """The second word of `raygrad prepare`; a section, because those come in their order."""

    folder: tyro.conf.Positional[str | None] = None
    """The folder of the source's own files, as --data-dir."""


@dataclass(frozen=True)
class Prepare:
    """Write a data set as WebDataset shards and index them for a run; without --run, write only.

    Sources: digits, mnist, cifar10, cifar100, image-folder (class folders, also under train/ and
    val/ or test/), imagenet (as it is published or as Kaggle packs it; tiny-imagenet). Or name a
    folder alone, or a Parquet file: raygrad prepare photos --run runs/photos
    """

    run: Run | None = None
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    place: OmitArgPrefixes[SourceFolder] = field(default_factory=SourceFolder)
    redo: Redo = False
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Runs the stage."""
        before = DataConfig() if self.run is None else stored_or_new(self.run).data
        data = named_data(self.data, self.place.folder, before)
        if self.run is None:
            if data.out is None:
                raise ConfigError("prepare must be given --run or --out, got neither. Name one.")
            print("\n".join(pipeline.write_source(data, data.out)))
            return
        config = replace(stored_or_new(self.run), data=data, wait_s=self.wait_s)
        with pipeline.bound(config, self.redo, "prepare"):
            pipeline.prepare(config)
        print(layout(self.run).data)


@dataclass(frozen=True)
class IndexTars:
    """Index your own tars for a run, as they are: braces, globs, lists or a folder of them.

    They may be local or on s3://, gs://, hf:// or https://. A folder of class folders or of
    Parquet files is written as shards first.
    """

    tars: tyro.conf.Positional[tuple[str, ...]]
    """Training shards, such as `s3://bucket/train-{0000..1023}.tar`, or a folder of shards."""
    run: Run
    test_tars: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--test-data",))] = ()
    """Test shards."""
    labels: str = "cls"
    """Where the labels stand: a member's extension, such as cls or txt (numbers or class names),
    json:FIELD or json:a.b, folder (of the key), shard (the tar's name), or a table of keys or file
    names and labels: TABLE.csv, TABLE.parquet, TABLE.csv:KEY:LABEL."""
    image: str = ""
    """Which member is the image, by its extension, such as left.png."""
    renumber: bool = False
    """Number the classes anew where numbers count from 1 or have gaps."""
    channels: Literal[1, 3] = 3
    """Colour channels that images are decoded to."""
    image_size: int | None = None
    """Photographs of several sizes become squares of this many pixels, to train on."""
    max_examples: int | None = None
    """At most so many training examples, and a quarter as many test examples."""
    val_fraction: float = 0.1
    """The share of training examples held out for validation."""
    test_fraction: float = 0.2
    """The share that is the test split, of class folders or a table without one of their own."""
    split_seed: int = 0
    """Changes which examples are held out."""
    shard_bytes: int = 256 * 2**20
    """About how large a shard becomes, where a folder of images or a table is written as shards."""
    max_reject_share: float = 0.01
    """The largest share of examples that may be unusable."""
    strict: bool = False
    """Fail on the first unusable example."""
    extend: bool = False
    """Go on with more shards than were indexed: those named here, or those that the run's own names
    have come to mean; the run's settings hold, and what it has stays."""
    redo: Redo = False
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Runs the stage."""
        if self.extend:
            if self.redo:
                raise ConfigError(
                    "--extend must go on with what is indexed, got --redo, which would do it "
                    "again. Leave one of them."
                )
            self._extend()
            return
        if not any(one.strip() for one in self.tars):
            raise ConfigError(
                "shards must be named, got none. Give URLs, a glob or a folder, such as "
                "'train-{0000..0099}.tar'."
            )
        config = replace(
            stored_or_new(self.run), data=DataConfig(**self._settings()), wait_s=self.wait_s
        )
        with pipeline.bound(config, self.redo, "prepare"):
            pipeline.prepare(config)
        print(layout(self.run).data)

    def _settings(self) -> dict[str, Any]:
        others = ("run", "extend", "redo", "wait_s")
        before = stored_or_new(self.run).data.tars
        values = {n: value for n, value in vars(self).items() if n not in others}
        return values | {"tars": as_before(self.tars, before)}

    def _extend(self) -> None:
        stored = existing(self.run)
        defaults = {f.name: f.default for f in fields(self)}
        for name, value in self._settings().items():
            was = getattr(stored.data, name)
            if name != "tars" and value not in (defaults[name], was):
                raise ConfigError(
                    f"shards that are added must be read as those that are there, got {name} "
                    f"{value!r} for {was!r}. Leave the flag, or name another --run."
                )
        from raygrad.storage.urls import expand

        known, named = (expand(urls) if urls else [] for urls in (stored.data.tars, self.tars))
        there = set(known)
        more = tuple(url for url in named if url not in there)
        tars = self.tars if there <= set(named) else stored.data.tars + more
        config = replace(stored, data=replace(stored.data, tars=tars), wait_s=self.wait_s)
        with pipeline.bound(config):
            pipeline.index_shards(config)
        print(layout(self.run).data)
        print(f"next: raygrad score {self.run} scores the new shards alone")


@dataclass(frozen=True)
class Export:
    """Write a subset as new WebDataset shards, or as other tools open it.

    folders: <class>/<image>. huggingface: Parquet, load_dataset("parquet", data_dir=OUT).
    fiftyone: the type FiftyOneImageClassificationDataset. cleanlab: labels.npy and pred_probs.npy,
    of --probabilities. Scores come along where there are any.
    """

    subset: tyro.conf.Positional[str]
    """The subset's Parquet file."""
    run: Run
    out: str
    """The folder of the new shards, local or s3://."""
    shard_bytes: int = 256 * 2**20
    """About how large a shard becomes."""
    format: Literal["webdataset", "folders", "huggingface", "fiftyone", "cleanlab"] = "webdataset"
    """What is written; all but WebDataset need a folder that is empty."""
    probabilities: str | None = None
    """For cleanlab: a CSV or Parquet file with key and prob_CLASS for every class, by a network
    that did not see the example."""

    def execute(self) -> None:
        """Writes the files."""
        config = existing(self.run)
        if self.format != "webdataset":
            if self.shard_bytes != Export.shard_bytes:
                raise ConfigError(
                    f"shard_bytes must be of format webdataset, got {self.shard_bytes} with "
                    f"{self.format}. Leave it."
                )
            kind, probabilities = self.format, self.probabilities
            count = pipeline.export_as(config, self.subset, self.out, kind, probabilities)
            print(f"{count} examples in {self.out}")
            return
        if self.probabilities is not None:
            raise ConfigError(
                "probabilities must be for cleanlab, got format webdataset. Leave them."
            )
        print("\n".join(pipeline.export(self.run, self.subset, self.out, self.shard_bytes)))


@dataclass(frozen=True)
class Scores:
    """Write a run's scores as one table: labels and their names, predictions, files, every score.

    Example: raygrad scores runs/own --out scores.csv
    """

    run: tyro.conf.Positional[Run]
    out: str = "-"
    """A file that ends in .csv or .parquet, local or s3://, or - for standard output."""
    network: str | None = None
    """The network that scored; by default the run's."""

    def execute(self) -> None:
        """Writes the table."""
        pipeline.write_scores(existing(self.run), self.out, self.network)
        if self.out != "-":
            print(self.out)
