"""The subcommands of `raygrad`: one a stage; the fields of each are its flags."""

import logging
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, Protocol

import tyro
from tyro.conf import OmitArgPrefixes

from raygrad import pipeline
from raygrad.api.settings import accepting, existing, scoring_config, seeded, stored_or_new
from raygrad.api.unused import refuse_selection_beside
from raygrad.cli.audit_subcommand import Audit
from raygrad.cli.choosing_subcommands import Influence, Select
from raygrad.cli.data_subcommands import Export, IndexTars, Prepare, Scores
from raygrad.cli.run_flags import Redo, Run, Wait, layout
from raygrad.cli.whole_study import (
    prepare_study,
    print_plan,
    print_results,
    print_status,
    run_study,
)
from raygrad.config import (
    DEFAULT_WAIT_S,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.errors import ConfigError

log = logging.getLogger("raygrad")


class Command(Protocol):
    """A subcommand: its fields are its flags."""

    def execute(self) -> None:
        """Runs it."""


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
    max_reject_share: float | None = None
    """The largest share of images that may be undecodable, in [0, 1]; by default the run's."""
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    redo: Redo = False
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Runs the stage."""
        config = replace(stored_or_new(self.run), train=self.train, wait_s=self.wait_s)
        config = seeded(config, self.score_seeds)
        with pipeline.bound(config, self.redo, "train"):
            metrics = pipeline.train(accepting(config, self.max_reject_share))
        print(
            f"{metrics['network']}: test accuracy {metrics['test_accuracy']:.4f} "
            f"at epoch {metrics['best_epoch']} of {metrics['epochs']}, "
            f"validation accuracy {metrics['val_accuracy']:.4f}"
        )
        print(layout(self.run).checkpoint(metrics["network"]))


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
    score_seeds: tuple[int, ...] = ()
    """Score the networks that were trained from these seeds too; by default those of `train`."""
    max_reject_share: float | None = None
    """The largest share of examples that may be unusable, in [0, 1]; by default the run's, which
    is 0.01 where nothing else was said."""
    score: OmitArgPrefixes[ScoreConfig] = field(default_factory=ScoreConfig)
    redo: Redo = False
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Indexes what has to be, and runs the stage."""
        config, before = self._config(), stored_or_new(self.run).select
        seen = None
        with pipeline.bound(config, self.redo, "score"):
            if config.select.score_column != before.score_column:
                log.info("select: subsets are drawn by %s now", config.select.score_column)
            if config.data.tars and (self.tars or self.redo):
                seen = pipeline.index_shards(config)
            facts = pipeline.score(accepting(config, self.max_reject_share), seen)
        print(f"{facts['num_examples']} examples scored in {facts['num_shards']} parts")
        print(layout(self.run).scores(config.scored_network))
        print(f"next: raygrad scores {self.run} --out scores.csv, raygrad select {self.run}")

    def _config(self) -> StudyConfig:
        config = replace(stored_or_new(self.run), wait_s=self.wait_s)
        names = ("tars", "labels", "image", "renumber", "channels")
        named = {name: getattr(self, name) for name in names}
        return scoring_config(config, self.score, named, self.score_seeds, self.max_reject_share)


@dataclass(frozen=True)
class Sweep:
    """Retrain the network on every subset and record its test accuracy."""

    run: Run
    select: OmitArgPrefixes[SelectConfig] = field(default_factory=SelectConfig)
    sweep: OmitArgPrefixes[SweepConfig] = field(default_factory=SweepConfig)
    subsets: tuple[str, ...] = ()
    """Subsets that you made elsewhere, in place of those that methods draw: Parquet files with a
    column key, named METHOD-SEED.parquet; braces and globs, local or s3://."""
    max_reject_share: float | None = None
    """The largest share of images that may be undecodable, in [0, 1]; by default the run's."""
    redo: Redo = False
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Runs the stage."""
        config = replace(
            existing(self.run), select=self.select, sweep=self.sweep, wait_s=self.wait_s
        )
        refuse_selection_beside(self.subsets, self.select, existing(self.run).select)
        config = accepting(config, self.max_reject_share)
        print_results(pipeline.sweep(config, self.subsets, self.redo))
        print(layout(self.run).results)


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
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Measures and prints."""
        pipeline.check_price(self.price_per_device_hour)
        config = replace(
            existing(self.run), select=self.select, sweep=self.sweep, wait_s=self.wait_s
        )
        refuse_selection_beside(self.subsets, self.select, existing(self.run).select)
        pipeline.check(config)
        plan = pipeline.plan(config, self.seconds, self.subsets)
        for text in plan.lines(self.price_per_device_hour):
            print(text)


@dataclass(frozen=True)
class Status:
    """Say what of a run is complete, running or missing, how long it took and what it cost."""

    run: tyro.conf.Positional[Run]

    def execute(self) -> None:
        """Prints it; nothing of the run is changed."""
        print_status(existing(self.run))


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
            existing(run)
        print(write_report(self.runs, self.out))


@dataclass(frozen=True)
class Models:
    """List the networks that can be named, with their parameter counts."""

    contains: str = ""
    """Only names that contain this."""

    def execute(self) -> None:
        """Prints the list."""
        from raygrad.training.models import (
            ImageSpec,
            library_networks,
            library_parameters,
            num_parameters,
            timm_networks,
        )
        from raygrad.training.networks import NETWORKS

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
            for name in found:
                print(f"timm/{name}")
        else:
            print(f"timm: {len(found)} networks, as timm/NAME; --contains lists those of a name")
        print(
            "your own: module:callable, which takes a raygrad.training.models.ImageSpec or nothing"
        )


@dataclass(frozen=True)
class RunStudy(StudyConfig):
    """Run the whole study: prepare, train, score, select, sweep, report."""

    score_seeds: tuple[int, ...] = ()
    """Scoring networks, a seed each; the same as --select.score-seeds."""
    recipe: str | None = None
    """A data set and network of the paper, such as mnist/cnn: its training, which flags change."""
    redo: Redo = False

    def execute(self) -> None:
        """Runs the study."""
        config = StudyConfig(**{f.name: getattr(self, f.name) for f in fields(StudyConfig)})
        run_study(seeded(config, self.score_seeds), self.redo)


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
    score_seeds: tuple[int, ...] = ()
    """Scoring networks, a seed each; the same as --select.score-seeds."""
    recipe: str | None = None
    """A data set and network of the paper, such as cifar10/cnn5: its training, which flags
    change."""
    redo: Redo = False

    def execute(self) -> None:
        """Runs the study, or says what it would be."""
        config = StudyConfig(**{f.name: getattr(self, f.name) for f in fields(StudyConfig)})
        config = seeded(config, self.score_seeds)
        if self.plan and self.redo and not self.prepare:
            raise ConfigError(
                "a plan must be of what is left in the run folder, got --redo, which would remove "
                "what is there first. Leave it, or plan for another --run."
            )
        if self.prepare:
            prepare_study(config, self.redo)
        if self.plan:
            print_plan(config)
        elif not self.prepare:
            run_study(config, self.redo)


COMMANDS: dict[str, type[Command]] = {
    "prepare": Prepare,
    "index": IndexTars,
    "train": Train,
    "score": Score,
    "scores": Scores,
    "audit": Audit,
    "influence": Influence,
    "select": Select,
    "plan": PlanSweep,
    "sweep": Sweep,
    "status": Status,
    "report": Report,
    "export": Export,
    "models": Models,
    "run": RunStudy,
}
