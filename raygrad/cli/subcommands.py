"""The subcommands of `raygrad`: one a stage; the fields of each are its flags."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, Protocol

import tyro
from tyro.conf import OmitArgPrefixes

from raygrad import pipeline
from raygrad.cli.whole_study import prepare_study, print_plan, print_results, run_study
from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.errors import ConfigError
from raygrad.runs.layout import RunLayout
from raygrad.selection import IN_MEMORY, METHODS
from raygrad.training.models import (
    ImageSpec,
    library_networks,
    library_parameters,
    num_parameters,
    timm_networks,
)
from raygrad.training.networks import NETWORKS

Run = Annotated[str, tyro.conf.arg(help="The run folder, on local disk or s3://.")]


class Command(Protocol):
    """A subcommand: its fields are its flags."""

    def execute(self) -> None:
        """Runs it."""


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

    def execute(self) -> None:
        """Runs the stage."""
        data = _named_data(self.data, self.place.folder)
        if self.run is None:
            if data.out is None:
                raise ConfigError("prepare must be given --run or --out, got neither. Name one.")
            print("\n".join(pipeline.write_source(data, data.out)))
            return
        config = replace(_stored(self.run), data=data)
        pipeline.check(config)
        pipeline.bind(config)
        pipeline.prepare(config)
        print(RunLayout(self.run).data)


@dataclass(frozen=True)
class IndexTars:
    """Index your own tars for a run, as they are: braces, globs, lists or a folder of them.

    They may be local or on s3://, gs://, hf:// or https://. A folder of class folders or of
    Parquet files is written as shards first.
    """

    tars: tyro.conf.Positional[tuple[str, ...]]
    """Training shards, such as 's3://bucket/train-{0000..1023}.tar', or a folder of shards."""
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

    def execute(self) -> None:
        """Runs the stage."""
        if not any(one.strip() for one in self.tars):
            raise ConfigError(
                "shards must be named, got none. Give URLs, a glob or a folder, such as "
                "'train-{0000..0099}.tar'."
            )
        values = {name: value for name, value in vars(self).items() if name != "run"}
        config = replace(_stored(self.run), data=DataConfig(**values))
        pipeline.check(config)
        pipeline.bind(config)
        pipeline.prepare(config)
        print(RunLayout(self.run).data)


@dataclass(frozen=True)
class Export:
    """Write a subset as new WebDataset shards, to train on elsewhere."""

    subset: tyro.conf.Positional[str]
    """The subset's Parquet file."""
    run: Run
    out: str
    """The folder of the new shards, local or s3://."""
    shard_bytes: int = 256 * 2**20
    """About how large a shard becomes."""

    def execute(self) -> None:
        """Writes the shards."""
        _existing(self.run)
        print("\n".join(pipeline.export(self.run, self.subset, self.out, self.shard_bytes)))


@dataclass(frozen=True)
class Train:
    """Train a network on the whole training split, with early stopping on validation."""

    run: Run
    recipe: str | None = None
    """A data set and network of the paper, such as mnist/cnn or cifar10/vgg16_32: how it is
    trained, which other flags change."""
    score_seeds: tuple[int, ...] = ()
    """Train a network from each of these seeds too, as `<network>-seed<seed>`: scoring networks, to
    draw subsets by and to have intervals over."""
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    def execute(self) -> None:
        """Runs the stage."""
        config = _seeded(replace(_stored(self.run), train=self.train), self.score_seeds)
        pipeline.check(config)
        pipeline.bind(config)
        metrics = pipeline.train(config)
        print(
            f"{metrics['network']}: test accuracy {metrics['test_accuracy']:.4f} "
            f"at epoch {metrics['best_epoch']} of {metrics['epochs']}, "
            f"validation accuracy {metrics['val_accuracy']:.4f}"
        )
        print(RunLayout(self.run).checkpoint(metrics["network"]))


@dataclass(frozen=True)
class Score:
    """Score every training example: with the run's trained network, or with one of your own.

    Nothing needs to be prepared or trained before: with --data your own tars are indexed on the
    way, all their examples are scored (none is held out), and --network with --checkpoint is the
    network that you have. Example: raygrad score --data 'own-{000..007}.tar' --network resnet18
    --checkpoint net.pt --num-classes 10 --columns grad_l2_weights el2n --run runs/own
    """

    run: Run
    tars: Annotated[tuple[str, ...], tyro.conf.arg(name="data")] = ()
    """Your own shards, as URLs with braces or globs, local or s3://; more of them later are scored
    alone. Or a folder of shards, of class folders or of Parquet files. By default the run's
    prepared data."""
    labels: str = "cls"
    """Where the labels of your shards stand: a member's extension, such as cls or txt, json:FIELD,
    folder (of the key), shard (the tar's name) or a table, TABLE.csv."""
    image: str = ""
    """Which member of your shards is the image, by its extension, such as left.png."""
    renumber: bool = False
    """Number the classes anew where numbers count from 1 or have gaps."""
    channels: Literal[1, 3] = 3
    """Colour channels that your shards are decoded to."""
    max_reject_share: float = 0.01
    """The largest share of examples that the index may reject, in [0, 1]."""
    score_seeds: tuple[int, ...] = ()
    """Score the networks that were trained from these seeds too; by default those of `train`."""
    score: OmitArgPrefixes[ScoreConfig] = field(default_factory=ScoreConfig)

    def execute(self) -> None:
        """Indexes what has to be, and runs the stage."""
        config = self._config()
        pipeline.check(config)
        pipeline.bind(config)
        if config.data.tars and self.tars:
            pipeline.index_shards(config)
        facts = pipeline.score(config)
        print(f"{facts['num_examples']} examples scored in {facts['num_shards']} parts")
        print(RunLayout(self.run).scores(config.train.network))

    def _config(self) -> StudyConfig:
        config = _stored(self.run)
        if self.tars:
            data = DataConfig(
                tars=self.tars,
                labels=self.labels,
                image=self.image,
                renumber=self.renumber,
                channels=self.channels,
                max_reject_share=self.max_reject_share,
                val_fraction=0.0,
                test_fraction=0.0,
            )
            config = replace(config, data=data)
        if self.score.network is not None:
            config = replace(config, train=replace(config.train, network=self.score.network))
        elif self.score.checkpoint:
            raise ConfigError("checkpoint must come with its network, got none. Give --network.")
        columns = self.score.columns
        if config.select.score_column not in columns and columns:
            select = replace(config.select, score_column=columns[0])
            config = replace(config, select=select, score=self.score)
        return _seeded(replace(config, score=self.score), self.score_seeds)


@dataclass(frozen=True)
class Select:
    """Draw subsets from the scores, one for every method, keep_fraction and seed."""

    run: tyro.conf.Positional[Run] = ""
    list: bool = False
    """Explain every method in a line, with its paper, and do nothing else."""
    select: OmitArgPrefixes[SelectConfig] = field(default_factory=SelectConfig)

    def execute(self) -> None:
        """Runs the stage."""
        if self.list:
            for name, method in (METHODS | IN_MEMORY).items():
                print(f"{name:26} {method.summary} ({method.paper})")
            return
        config = replace(_existing(self.run), select=self.select)
        pipeline.check(config)
        pipeline.select(config)
        print("\n".join(pipeline.subset_urls(config)))


@dataclass(frozen=True)
class Sweep:
    """Retrain the network on every subset and record its test accuracy."""

    run: Run
    select: OmitArgPrefixes[SelectConfig] = field(default_factory=SelectConfig)
    sweep: OmitArgPrefixes[SweepConfig] = field(default_factory=SweepConfig)
    subsets: tuple[str, ...] = ()
    """Subsets that you made elsewhere, in place of those that methods draw: Parquet files with a
    column key, named METHOD-SEED.parquet; braces and globs, local or s3://."""

    def execute(self) -> None:
        """Runs the stage."""
        config = replace(_existing(self.run), select=self.select, sweep=self.sweep)
        print_results(pipeline.sweep(config, self.subsets))
        print(RunLayout(self.run).results)


@dataclass(frozen=True)
class PlanSweep:
    """Print the retrainings that a sweep has still to run, with time, device-hours and cost.

    The rates are measured here, for a few seconds a network, under the load of the sweep.
    """

    run: Run
    select: OmitArgPrefixes[SelectConfig] = field(default_factory=SelectConfig)
    sweep: OmitArgPrefixes[SweepConfig] = field(default_factory=SweepConfig)
    subsets: tuple[str, ...] = ()
    """Subsets that you made elsewhere, as of `raygrad sweep`."""
    price_per_device_hour: float = 0.0
    """What a CPU or GPU costs an hour, in any currency."""
    seconds: float = 10.0
    """How long each network's rate is measured."""

    def execute(self) -> None:
        """Measures and prints."""
        pipeline.check_price(self.price_per_device_hour)
        config = replace(_existing(self.run), select=self.select, sweep=self.sweep)
        pipeline.check(config)
        plan = pipeline.plan(config, self.seconds, self.subsets)
        for text in plan.lines(self.price_per_device_hour):
            print(text)


@dataclass(frozen=True)
class Report:
    """Write figures and one HTML page from the tables of one or several runs."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders; several are compared on one page."""
    out: str | None = None
    """Where the report goes; by default `<first run>/report`."""

    def execute(self) -> None:
        """Writes the report."""
        from raygrad.report import write_report  # with all of Matplotlib

        for run in self.runs:
            _existing(run)
        print(write_report(self.runs, self.out))


@dataclass(frozen=True)
class Models:
    """List the networks that can be named, with their parameter counts."""

    contains: str = ""
    """Only names that contain this."""

    def execute(self) -> None:
        """Prints the list."""
        mnist, cifar = ImageSpec(1, 28, 28, 10), ImageSpec(3, 32, 32, 10)
        for name, builder in NETWORKS.items():
            if self.contains in name:
                spec = cifar if name.startswith("vgg") else mnist
                count = num_parameters(builder(spec))
                size = f"{spec.channels}x{spec.height}x{spec.width}, 10 classes"
                print(f"{name:26} {count:>12,}  {size}: {(builder.__doc__ or '').splitlines()[0]}")
        for name in library_networks():
            if self.contains in name:
                print(f"{name:26} {library_parameters(name):>12,}  torchvision")
        found = [name for name in timm_networks() if self.contains in name]
        if self.contains:
            print("\n".join(f"timm/{name}" for name in found))
        else:
            print(f"timm: {len(found)} networks, as timm/NAME; --contains lists those of a name")
        print("your own: module:callable, which takes a raygrad.training.models.ImageSpec")


@dataclass(frozen=True)
class RunStudy(StudyConfig):
    """Run the whole study: prepare, train, score, select, sweep, report."""

    recipe: str | None = None
    """A data set and network of the paper, such as mnist/cnn: its training, which flags change."""

    def execute(self) -> None:
        """Runs the study."""
        run_study(StudyConfig(**{f.name: getattr(self, f.name) for f in fields(StudyConfig)}))


@dataclass(frozen=True)
class Job(StudyConfig):
    """Run the whole study: prepare, train, score, select, sweep, report."""

    smoke: bool = False
    """Run the whole job on a few hundred examples, in minutes; other flags still hold."""
    plan: bool = False
    """Print what would run, with time, device-hours and cost (--score.price-per-hour) measured on
    this cluster in seconds where the data are prepared, and run nothing."""
    prepare: bool = False
    """Do the stage prepare only, so that --plan knows the data."""
    recipe: str | None = None
    """A data set and network of the paper, such as cifar10/cnn5: its training, which flags
    change."""

    def execute(self) -> None:
        """Runs the study, or says what it would be."""
        config = StudyConfig(**{f.name: getattr(self, f.name) for f in fields(StudyConfig)})
        if self.prepare:
            prepare_study(config)
        if self.plan:
            print_plan(config)
        elif not self.prepare:
            run_study(config)


def _named_data(data: DataConfig, folder: str | None) -> DataConfig:
    """Returns the data with what stands on the line without a flag: a source's folder, or data."""
    if folder is not None:
        if data.data_dir not in (None, folder):
            raise ConfigError(
                f"a source must have one folder, got {folder!r} and --data-dir {data.data_dir!r}."
            )
        return replace(data, data_dir=folder)
    if pipeline.is_place(data.source) and not data.tars:
        return replace(data, source=DataConfig.source, tars=(data.source,))
    return data


def _stored(run: str) -> StudyConfig:
    return pipeline.stored_config(run) or StudyConfig(run)


def _seeded(config: StudyConfig, score_seeds: tuple[int, ...]) -> StudyConfig:
    """Returns a study with these scoring networks, or with its own where none are named."""
    if not score_seeds:
        return config
    return replace(config, select=replace(config.select, score_seeds=score_seeds))


def _existing(run: str) -> StudyConfig:
    config = pipeline.stored_config(run)
    if config is None:
        raise ConfigError(
            f"run folder must exist, got {run!r} without a config.json. "
            "Check the path, or begin a run: raygrad prepare, raygrad run."
        )
    return config


COMMANDS: dict[str, type[Command]] = {
    "prepare": Prepare,
    "index": IndexTars,
    "train": Train,
    "score": Score,
    "select": Select,
    "plan": PlanSweep,
    "sweep": Sweep,
    "report": Report,
    "export": Export,
    "models": Models,
    "run": RunStudy,
}
