"""The studies that are run over many sittings: what each trains, scores, draws and retrains."""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from raygrad.config import (
    DataConfig,
    ScoreConfig,
    SelectConfig,
    StudyConfig,
    SweepConfig,
    TrainConfig,
)
from raygrad.training.recipes import recipe

PAPER = ("random", "max_gradient", "non_extreme_max_gradient", "gradient_cdf")
"""The paper's methods."""


@dataclass(frozen=True)
class Pass:
    """Which networks are retrained on the subsets that networks of one kind choose."""

    scored: str
    """The network that is trained on all data from each seed, and scored with."""
    retrained: tuple[str, ...]
    """The networks that are retrained, by the recipe of the study's first network."""


@dataclass(frozen=True)
class KeptStudy:
    """A study in one run folder; the scoring networks are trained by the recipe of retrainings."""

    name: str
    """Of the run folder, and of the folder of what is kept."""
    source: str
    """The data set, as `raygrad prepare` names it."""
    recipe: TrainConfig
    """How every network is trained."""
    passes: tuple[Pass, ...]
    """The first gives the study its network; a later one uses its random subsets too."""
    keep_fractions: tuple[float, ...]
    """The shares that are kept."""
    threads: int
    """Of each retraining; fixed, as another number rounds otherwise."""
    whole_minutes: Mapping[str, float]
    """A guess of what a training on all data takes, by network; rows tell better soon."""
    archive: str | None = None
    """The tar of class folders in the data folder that is unpacked first."""
    image_size: int | None = None
    """The side of the squares that photographs are scaled and cut to."""
    methods: tuple[str, ...] = PAPER
    """How subsets are drawn."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the scoring networks, one a replicate."""
    scoring_threads: int = 2
    """Of the training of a scoring network, which nothing runs beside; fixed likewise."""
    columns: tuple[str, ...] = ("grad_l2_last_layer_weights", "grad_l2_weights", "loss")
    """What is scored; subsets are drawn by the first."""

    def data(self, folder: Path | None, work: Path) -> DataConfig:
        """Returns where the data stand, once an archive is unpacked.

        Args:
            folder: The folder of the data set's own files; None for one that needs none.
            work: Where an archive is unpacked, unless it is.
        """
        images = work / "images"
        if self.archive is not None and folder is not None and not images.exists():
            half = work / "images.part"
            with tarfile.open(folder / self.archive) as tar:
                tar.extractall(half, filter="data")
            half.rename(images)
        place = images if self.archive is not None else folder
        return DataConfig(
            self.source,
            data_dir=None if place is None else str(place),
            shard_bytes=8 * 2**20,
            image_size=self.image_size,
        )

    def config(self, run: Path, data: DataConfig) -> StudyConfig:
        """Returns the whole study of the first pass."""
        return StudyConfig(
            str(run),
            data=data,
            train=replace(self.recipe, num_workers=1, cpus_per_worker=self.scoring_threads),
            # Of one size, as memory may not choose it: another one rounds otherwise.
            score=ScoreConfig(columns=self.columns, batch_size=250),
            select=SelectConfig(
                methods=self.methods,
                keep_fractions=self.keep_fractions,
                seeds=(0,),
                score_column=self.columns[0],
                score_seeds=self.seeds,
            ),
            sweep=SweepConfig(
                networks=self.passes[0].retrained, cpus_per_worker=float(self.threads)
            ),
        )

    def scoring(self, config: StudyConfig, part: Pass, seed: int) -> StudyConfig:
        """Returns the study in which one scoring network is trained and scored."""
        return replace(
            config,
            train=replace(config.train, network=part.scored),
            select=replace(config.select, score_seeds=(seed,)),
        )

    def retraining(
        self,
        config: StudyConfig,
        part: Pass,
        seed: int,
        networks: tuple[str, ...] = (),
        methods: tuple[str, ...] = (),
        keep_fractions: tuple[float, ...] = (),
    ) -> StudyConfig:
        """Returns the study of some retrainings of one replicate, by default of all."""
        select = replace(
            config.select,
            score_seeds=(seed,),
            # The subsets of the first pass are the run's own.
            score_network=None if part == self.passes[0] else part.scored,
            methods=methods or self.methods,
            keep_fractions=keep_fractions or self.keep_fractions,
        )
        networks = networks or part.retrained
        return replace(config, select=select, sweep=replace(config.sweep, networks=networks))


def _plain(data_set: str, network: str) -> TrainConfig:
    """Returns a recipe without what is watched on the way, which would be kept or lost."""
    return replace(
        recipe(data_set, network), dynamics=False, probe_size=0, bound_epochs=(), keep_epochs=()
    )


CIFAR10 = KeptStudy(
    name="cifar10",
    source="image-folder",
    archive="cifar10-jpeg.tar",
    # bf16 halves the time where the processor has instructions for it.
    recipe=replace(_plain("cifar10", "airbench94"), numerics="bf16"),
    passes=(Pass("airbench94", ("airbench94",)),),
    keep_fractions=(0.1, 0.3, 0.5, 0.8, 1.0),
    threads=2,
    whole_minutes={"airbench94": 8.0},
    columns=("grad_l2_last_layer_weights", "grad_l2_weights", "loss", "el2n"),
)
PHOTOGRAPHS = KeptStudy(
    name="photographs",
    source="image-folder",
    archive="imagenette160-small.tar",
    image_size=96,
    # Chosen on training images that were left out and validation, one seed a candidate: Muon
    # beside SGD, 12 to 40 epochs, batches of 16 to 64, rates of 0.02 to 0.1; the study's record
    # has them all.
    recipe=TrainConfig(
        network="small_vgg16",
        epochs=16,
        batch_size=32,
        optimizer="muon",
        learning_rate=0.05,
        schedule="linear",
        lr_decay_epochs=(),
        warmup_epochs=2.0,
        augment="shift_flip",
        augment_pixels=8,
        augment_fill="reflect",
        small_epochs=12,
        small_size=64,
        patience=20,
        numerics="bf16",
        channels_last=True,
    ),
    passes=(
        Pass("small_vgg16", ("small_vgg16", "small_alexnet")),
        Pass("small_alexnet", ("small_alexnet", "small_vgg16")),
    ),
    keep_fractions=(0.1, 0.3, 0.5, 1.0),
    threads=1,
    whole_minutes={"small_vgg16": 4.1, "small_alexnet": 1.0},
)
MNIST = KeptStudy(
    name="mnist",
    source="mnist",
    # Validation of 6,000 images after every epoch would be most of what small subsets cost.
    recipe=replace(_plain("mnist", "cnn"), validation_steps=50, numerics="bf16"),
    passes=(Pass("cnn", ("cnn", "mlp", "linear")), Pass("mlp", ("cnn",))),
    keep_fractions=(175 / 54_000, 0.006, 0.01, 0.02, 0.03, 0.05, 0.1, 1.0),
    threads=1,
    whole_minutes={"cnn": 14.0, "mlp": 4.0, "linear": 3.0},
)
DIGITS = KeptStudy(
    name="digits",
    source="digits",
    recipe=replace(_plain("digits", "linear"), epochs=40, patience=40),
    passes=(Pass("linear", ("linear",)), Pass("mlp", ("linear",))),
    keep_fractions=(0.3, 1.0),
    threads=1,
    whole_minutes={"linear": 0.1, "mlp": 0.1},
    methods=("random", "max_gradient"),
    seeds=(0, 1),
    scoring_threads=1,
)
"""A rehearsal of minutes, without any data of its own."""

STUDIES = {study.name: study for study in (CIFAR10, PHOTOGRAPHS, MNIST, DIGITS)}
"""Every study by its name."""
