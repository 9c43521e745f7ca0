"""The subcommand `raygrad select`: which images are kept."""

from dataclasses import dataclass, field, replace
from typing import Literal

import tyro
from tyro.conf import OmitArgPrefixes

from raygrad import pipeline
from raygrad.cli.run_flags import Redo, Run, existing
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
    from raygrad.selection.named import check_method, needs

    lines = []
    for name, method in (METHODS | COMPARING).items():
        reads = needs(check_method(name))
        lines.append(f"{name:26} {method.summary}; reads {reads} ({method.paper})")
    return [
        *lines,
        "A score: --score-column, of raygrad score. dual and mean_probability: raygrad train "
        "--dynamics, then --score-network NETWORK-dynamics. Features and errors: raygrad score "
        "--features, or --make-features here.",
    ]
