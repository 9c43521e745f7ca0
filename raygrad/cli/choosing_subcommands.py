"""The subcommands `raygrad select` and `raygrad influence`: who is kept, and who pulls whom."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes

from raygrad import pipeline
from raygrad.api.settings import existing
from raygrad.cli.run_flags import Redo, Run
from raygrad.config import SelectConfig
from raygrad.errors import ConfigError


@dataclass(frozen=True)
class Select:
    """Draw subsets from the scores, one for every method, keep_fraction and seed."""

    run: tyro.conf.Positional[Run] = ""
    list: bool = False
    """Explain every method in a line, with its paper, and do nothing else."""
    select: OmitArgPrefixes[SelectConfig] = field(default_factory=SelectConfig)
    format: Literal["parquet", "csv", "txt"] | None = None
    """Also list, beside each subset, the keys that it keeps and those that it drops: a table with
    the columns key, kept and weight, or two text files, a key a line."""
    redo: Redo = False

    def execute(self) -> None:
        """Runs the stage."""
        if self.list:
            print("\n".join(_methods()))
            return
        if not self.run:
            raise ConfigError(
                "select must be given a run folder, got none. Name it: raygrad select RUN"
            )
        config = replace(existing(self.run), select=self.select)
        pipeline.check(config)
        pipeline.select(config, self.redo)
        for url in pipeline.subset_urls(config):
            print(url)
            if self.format is not None:
                print(pipeline.write_subset_list(config, url, self.format))


def _methods() -> list[str]:
    """Returns a line for each method: what it keeps, what it reads, and whose it is."""
    from raygrad.selection import COMPARING, METHODS
    from raygrad.selection.named import FLAGS_OF, check_method, needs

    lines = []
    for name, method in (METHODS | COMPARING).items():
        reads = needs(check_method(name))
        lines.append(f"{name:26} {method.summary}; reads {reads} ({method.paper})")
        own = " ".join(
            f"{name}.{option.name}={option.default}"
            for option in fields(method)  # type: ignore[arg-type]  # methods are dataclasses
            if f"{name}.{option.name}" not in FLAGS_OF
        )
        lines += [f"{'':26} --options {own}"] if own else []
    return [
        *lines,
        "A score: --score-column, of raygrad score. dual and mean_probability: raygrad train "
        "--dynamics, then --score-network NETWORK-dynamics. Features and errors: raygrad score "
        "--features, or --make-features here.",
    ]


@dataclass(frozen=True)
class Influence:
    """Find which training images pull an image's loss most, by gradients of the last layer.

    Summed over checkpoints (TracIn-CP, last layer; Pruthi et al. 2020): above 0, a step on the
    training image lowers the loss of the image that is asked for. What the layers before the last
    learned from an image is not in it, and images of large gradient, wrong labels among them, pull
    many. Train with --keep-epochs to sum over more than the best epoch. Writes
    <run>/influence/<key>.parquet.
    """

    run: tyro.conf.Positional[Run]
    key: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--keys",))] = ()
    """Keys of images of any split; raygrad scores lists those of training."""
    worst: int | None = None
    """Beside keys: so many test images that the network is wrong about, of the highest loss. The
    report shows what pulls them."""
    top: int = 20
    """How many training images of each end are kept."""
    checkpoint: tuple[str, ...] = ()
    """Files of weights to sum over, each counted alike; by default the epochs that training kept,
    by their learning rates, or the checkpoints that scored."""
    make_features: bool = False
    """Make the features of checkpoints that have none, in a pass over the images for each."""

    def execute(self) -> None:
        """Finds and prints them."""
        config, keys = existing(self.run), list(self.key)
        if self.worst is not None:
            keys += [key for key in pipeline.worst_keys(config, self.worst) if key not in keys]
        found = pipeline.influence(
            config, keys, checkpoints=self.checkpoint, top=self.top,
            make=self.make_features,
        )  # fmt: skip
        for one in found:
            print(
                f"{one.query} ({one.label_name}): what pulls its loss, of {one.num_images:,} "
                f"training images, by the last layer at {one.over}"
            )
            for row in one.rows.to_pylist():
                print(
                    f"{row['rank']:>9,} {row['influence']:>+12.4g}  {row['label_name']:20} "
                    f"{row['key']}"
                )
            print(one.url)
