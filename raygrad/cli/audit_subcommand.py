"""The subcommand `raygrad audit`: what is wrong with a data set, and what can go."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes

from raygrad import pipeline
from raygrad.api.settings import accepting, audited_data, stored_or_new
from raygrad.cli.run_flags import Redo, Run, Wait, layout
from raygrad.config import DEFAULT_WAIT_S, StudyConfig
from raygrad.config.auditing import AuditConfig
from raygrad.errors import ConfigError
from raygrad.runs.audit_tables import doubt


@dataclass(frozen=True)
class Audit:
    """Find wrong labels, repeats and outliers, and what can go; nothing needs to be done before.

    Every image is judged by networks that have not seen it. Writes <run>/audit/: labels, repeats,
    outliers, keep and drop, as Parquet and CSV. Example: raygrad audit photos/ --run runs/photos
    """

    tars: tyro.conf.Positional[tuple[str, ...]] = ()
    """A folder of class folders, of tars or of Parquet files, or tars as URLs; by default the run's
    prepared data."""
    run: Run = ""
    test_tars: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--test-data",))] = ()
    """Test data, so that what is in both is found."""
    labels: str = "cls"
    """Where the labels of your own shards stand; see raygrad index."""
    renumber: bool = False
    """Number the classes anew where numbers count from 1 or have gaps."""
    max_reject_share: float | None = None
    """The largest share of images that may be unusable, in [0, 1]; by default the run's."""
    audit: OmitArgPrefixes[AuditConfig] = field(default_factory=AuditConfig)
    redo: Redo = False
    wait_s: Wait = DEFAULT_WAIT_S

    def execute(self) -> None:
        """Prepares what is not, and audits."""
        if not self.run:
            raise ConfigError("audit must be given its run folder, got none. Give --run.")
        config = self._config()
        with pipeline.bound(config, self.redo, "audit"):
            if self.tars:
                pipeline.prepare(config)
            asked = accepting(config, self.max_reject_share)
            facts = pipeline.audit(asked, self.audit, self.redo)
        for text in _lines(facts):
            print(text)
        where = layout(self.run)
        names = ("labels", "repeats", "outliers", "keep", "drop", *["check"][: self.audit.check])
        print(f"{where.audit}/" + ", ".join(f"{name}.csv" for name in names))
        print(
            f"next: raygrad report {self.run}, then raygrad export {where.audit}/keep.parquet "
            f"--run {self.run} --out kept/"
        )

    def _config(self) -> StudyConfig:
        config = replace(stored_or_new(self.run), wait_s=self.wait_s)
        named = {n: getattr(self, n) for n in ("tars", "test_tars", "labels", "renumber")}
        return audited_data(config, named, self.max_reject_share)


def _lines(facts: dict[str, Any]) -> list[str]:
    """Returns what an audit came to, a line each."""
    total = facts["num_examples"]
    found = [
        f"{total:,} images judged by {facts['how']}; right {facts['accuracy']:.1%} of the time",
        f"labels   {facts['num_suspects']:,} suspects; about {facts['num_wrong']:,.0f} wrong "
        f"({facts['num_wrong_low']:,.0f} to {facts['num_wrong_high']:,.0f}, if the network is "
        "right where it is sure)",
        f"repeats  {facts['num_repeated']:,} images in {facts['num_groups']:,} groups, "
        f"{facts['num_across_splits']:,} across splits, {facts['num_across_labels']:,} across "
        "labels",
        f"outliers {facts['num_odd']:,} far from every class, blank, tiny or of one colour",
        f"keep     {facts['num_kept']:,} training images, drop {facts['num_dropped']:,}: "
        f"flaws first, then {facts['rule']}",
    ]
    if doubt(facts["accuracy"]):
        found.insert(2, f"         {doubt(facts['accuracy'])}")
    if "check" in facts:
        found.append(f"check    {facts['check']['words']}")
    if facts["not_judged"]:
        number = f"{facts['not_judged']:,}"
        found.append(f"{number} images are alone in their class but for copies: not judged")
    if facts["rejected"]:
        found.append(f"{facts['rejected']:,} images could not be decoded: rejects.parquet")
    return found
