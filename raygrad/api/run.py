"""A run folder from Python: every stage a method, every table, figure and image at hand."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raygrad import pipeline
from raygrad.api import run_contents, settings
from raygrad.api.carried import as_before
from raygrad.api.fitting import fitted
from raygrad.api.standing import standing_html
from raygrad.api.unused import refuse_selection_beside
from raygrad.config import DEFAULT_WAIT_S, DataConfig, StudyConfig
from raygrad.config.auditing import AuditConfig
from raygrad.engine.session import session
from raygrad.errors import ConfigError
from raygrad.runs.layout import RunLayout
from raygrad.storage import patience
from raygrad.training.recipes import named_recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from raygrad.api.run_contents import AuditTables
    from raygrad.pipeline.surveying import StageStatus

Names = str | PurePath | Sequence[str | PurePath]


class Run:
    """A run folder, from a notebook or a script: what the commands do, and what came of it.

    A stage that is complete is skipped, one that was interrupted goes on, and what a stage is told
    stays with the folder, for the command too: `raygrad status runs/photos` sees the same run. Each
    method takes the settings that the command's flags name, with underscores; raygrad/CONFIG.md
    lists them all. Where Ray has work to do it is started and ended with the call, unless it runs
    already.

    Args:
        folder: The run folder, on local disk or s3://; a new one is begun by the first stage.
        wait_s: Seconds that room on the cluster is waited for, at least 0, inf for ever.

    Raises:
        ConfigError: The folder has no name.

    Example:
        >>> import raygrad
        >>> run = raygrad.Run("runs/photos")
        >>> found = run.audit("photos/", network="linear", folds=2, epochs=1, image_size=8)
        >>> found.labels.column_names[:2], found.labels.num_rows
        (['key', 'file'], 40)
        >>> first = found.labels["key"][0].as_py()  # the likeliest wrong label
        >>> run.image(first).size
        (8, 8)
        >>> [(stage.stage, stage.state) for stage in run.status]
        [('prepare', 'complete'), ('audit', 'complete'), ('report', 'missing')]
        >>> run.report()[-17:]
        'report/index.html'
    """

    def __init__(self, folder: str | os.PathLike[str], *, wait_s: float = DEFAULT_WAIT_S) -> None:
        self._folder = os.fspath(folder)
        self._wait_s = StudyConfig(
            self._folder, wait_s=fitted(StudyConfig, "wait_s", wait_s)
        ).wait_s

    @property
    def folder(self) -> str:
        """The run folder, as an absolute path or a URL."""
        return RunLayout(self._folder).url

    @property
    def config(self) -> StudyConfig:
        """What the run was told so far; the defaults where nothing was."""
        return replace(settings.stored_or_new(self._folder), wait_s=self._wait_s)

    @property
    def status(self) -> "list[StageStatus]":
        """How far each stage is, in order; none before the first was begun."""
        return pipeline.status(self.config) if self._is_begun else []

    def prepare(
        self, source: str | PurePath | None = None, *, redo: bool = False, **data: Any
    ) -> pa.Table:
        """Writes a data set as shards and indexes them; returns a row an example.

        Args:
            source: digits, mnist, cifar10, cifar100, imagenet or image-folder, or a folder of data;
                by default the run's.
            redo: Do it again, and remove all that came of it.
            data: Settings of the data by name, such as data_dir or val_fraction.

        Raises:
            ConfigError: A setting is none, the files are not there, or the run has other data.
            DataError: More examples are unusable than is accepted.
        """
        given = data if source is None else {"source": os.fspath(source), **data}
        config = self.config
        asked = settings.section_with(config, "data", given)
        config = replace(config, data=settings.named_data(asked, None, config.data))
        with _stage(), pipeline.bound(config, redo, "prepare"):
            pipeline.prepare(config)
        return self.index_table

    def index(self, data: Names, *, redo: bool = False, **others: Any) -> pa.Table:
        """Indexes your own shards as they are, or a folder of images; returns a row an example.

        Args:
            data: Shards as URLs with braces or globs, a folder of shards, of class folders or of
                Parquet files; one or several.
            redo: Do it again, and remove all that came of it.
            others: Settings of the data by name, such as labels, test_tars or image_size.

        Raises:
            ConfigError: A setting is none, something is not there, or the run has other data.
            DataError: More examples are unusable than is accepted.
        """
        config, tars = self.config, _names(data)
        if not any(one.strip() for one in tars):
            raise ConfigError(f"data must be named, got {data!r}. Give a folder, URLs or a glob.")
        tars = as_before(tars, config.data.tars)
        given = settings.typed(DataConfig, others, "a setting of data")
        config = replace(config, data=DataConfig(**{**given, "tars": tars}))
        with _stage(), pipeline.bound(config, redo, "prepare"):
            pipeline.prepare(config)
        return self.index_table

    def train(
        self,
        network: str | None = None,
        *,
        recipe: str | None = None,
        score_seeds: Sequence[int] = (),
        max_reject_share: float | None = None,
        redo: bool = False,
        **train: Any,
    ) -> dict[str, Any]:
        """Trains a network on the training split; returns its metrics.

        Args:
            network: Its name, or module:callable; by default the run's.
            recipe: A data set and network of the paper, such as mnist/cnn, which others change.
            score_seeds: Train one from each of these seeds too, to have intervals over them.
            max_reject_share: The largest share of undecodable images, in [0, 1].
            redo: Do it again, and remove all that came of it.
            train: Settings of training by name, such as epochs or learning_rate.

        Raises:
            ConfigError: A setting is none, or the run has another training of the network.
            TooManyRejectsError: More images cannot be decoded than is accepted.
        """
        config = self.config
        if recipe is not None:
            config = replace(config, train=named_recipe(recipe))
        given = train if network is None else {"network": network, **train}
        config = replace(config, train=settings.section_with(config, "train", given))
        config = settings.seeded(config, score_seeds)
        with _stage(), pipeline.bound(config, redo, "train"):
            return pipeline.train(settings.accepting(config, max_reject_share))

    def score(
        self,
        data: Names = (),
        *,
        score_seeds: Sequence[int] = (),
        max_reject_share: float | None = None,
        redo: bool = False,
        labels: str = "cls",
        image: str = "",
        renumber: bool = False,
        channels: int = 3,
        **score: Any,
    ) -> pa.Table:
        """Scores every training example; returns a row an example, in the order of the shards.

        Args:
            data: Your own shards, all of which are scored; by default the run's prepared data.
            score_seeds: Score the networks of these seeds too.
            max_reject_share: The largest share of unusable examples, in [0, 1].
            redo: Do it again, and remove all that came of it.
            labels: Where the labels of your shards stand, as of `index`.
            image: Which member of your shards is the image, by its extension.
            renumber: Number the classes anew where numbers have gaps.
            channels: Colour channels that your shards are decoded to, 1 or 3.
            score: Settings of scoring by name, such as network, checkpoint or columns.

        Raises:
            ConfigError: A setting is none, or the run has other scores.
            TooManyRejectsError: More examples are unusable than is accepted.
        """
        config = self.config
        named = {"tars": _names(data), "labels": labels, "image": image, "renumber": renumber,
                 "channels": channels}  # fmt: skip
        asked = settings.section_with(config, "score", score)
        config = settings.scoring_config(config, asked, named, score_seeds, max_reject_share)
        seen = None
        with _stage(), pipeline.bound(config, redo, "score"):
            if config.data.tars and (named["tars"] or redo):
                seen = pipeline.index_shards(config)
            pipeline.score(settings.accepting(config, max_reject_share), seen)
        return self.scores()

    def audit(
        self,
        data: Names = (),
        *,
        test_data: Names = (),
        labels: str = "cls",
        renumber: bool = False,
        max_reject_share: float | None = None,
        redo: bool = False,
        **audit: Any,
    ) -> "AuditTables":
        """Finds wrong labels, repeats and outliers, and what can go; returns the tables.

        Args:
            data: A folder of class folders, of tars or of Parquet files, or tars as URLs; by
                default the run's prepared data.
            test_data: Test data, so that what is in both is found.
            labels: Where the labels of your own shards stand, as of `index`.
            renumber: Number the classes anew where numbers have gaps.
            max_reject_share: The largest share of unusable images, in [0, 1].
            redo: Do it again.
            audit: Settings of the audit by name, such as network, checkpoint, goal or check.

        Raises:
            ConfigError: A setting is none, or network, weights and data do not fit.
            DataError: No image can be decoded.
            TooManyRejectsError: More images cannot be decoded than is accepted.
        """
        options = AuditConfig(**settings.typed(AuditConfig, audit, "a setting of audit"))
        named = {"tars": _names(data), "test_tars": _names(test_data), "labels": labels,
                 "renumber": renumber}  # fmt: skip
        config = settings.audited_data(self.config, named, max_reject_share)
        with _stage(), pipeline.bound(config, redo, "audit"):
            if named["tars"]:
                pipeline.prepare(config)
            pipeline.audit(settings.accepting(config, max_reject_share), options, redo)
        return run_contents.audit_tables(self.folder)

    def select(self, *, redo: bool = False, **select: Any) -> dict[str, pa.Table]:
        """Draws subsets; returns key, shard and weight of what each keeps, by its file's name.

        Args:
            redo: Draw again what was drawn otherwise.
            select: Settings of selection by name, such as methods, keep_fractions or seeds.

        Raises:
            ConfigError: A setting is none, there are no scores, or a subset was drawn otherwise.
        """
        config = self._existing("select", select)
        with _stage():
            pipeline.check(config)
            pipeline.select(config, redo)
        return run_contents.subsets(pipeline.subset_urls(config), RunLayout(self._folder))

    def sweep(
        self,
        subsets: Names = (),
        *,
        select: Mapping[str, Any] | None = None,
        max_reject_share: float | None = None,
        redo: bool = False,
        **sweep: Any,
    ) -> pa.Table:
        """Retrains on every subset; returns a row a retraining, with its test accuracy.

        Args:
            subsets: Files of subsets that you made elsewhere, in place of those that are drawn.
            select: Settings of selection by name, as of `select`.
            max_reject_share: The largest share of undecodable images, in [0, 1].
            redo: Draw again, and retrain, what was drawn otherwise.
            sweep: Settings of the sweep by name, such as networks or protocols.

        Raises:
            ConfigError: A setting is none, there are no scores, or both subsets and which ones to
                draw are given.
            IncompleteError: Some retrainings could not be done.
        """
        config = self._existing("select", select or {})
        refuse_selection_beside(_names(subsets), config.select, self.config.select)
        config = replace(config, sweep=settings.section_with(config, "sweep", sweep))
        with _stage():
            asked = settings.accepting(config, max_reject_share)
            return pipeline.sweep(asked, _names(subsets), redo)

    def report(self, out: str | os.PathLike[str] | None = None) -> str:
        """Writes figures and pages, an audit's too; returns where the first page is.

        Args:
            out: The folder; by default `report` in the run's.

        Raises:
            ConfigError: There is no run yet.
        """
        from raygrad.report import write_report  # with all of Matplotlib

        settings.existing(self._folder)
        return write_report([self._folder], None if out is None else os.fspath(out))

    @property
    def index_table(self) -> pa.Table:
        """A row an example: key, label, split, and where its image is."""
        return run_contents.index_table(self.folder)

    def scores(self, network: str | None = None) -> pa.Table:
        """Returns a complete score table, with one row an example and one column a score.

        Args:
            network: The network that scored; by default the run's. `<network>-dynamics` is what
                training watched.

        Raises:
            ConfigError: The table is not complete.
        """
        return run_contents.scores(self.folder, network or self.config.scored_network)

    @property
    def audited(self) -> "AuditTables":
        """The tables of the audit that was made."""
        return run_contents.audit_tables(self.folder)

    @property
    def results(self) -> pa.Table:
        """The table of retrainings, with a row each."""
        return run_contents.results(self.folder)

    def figures(self) -> "dict[str, Figure]":
        """Returns the report's figures by name, as Matplotlib draws them."""
        return run_contents.figures(self.folder)

    def image(self, key: str) -> "Image":
        """Returns an example's image as it stands in its shard.

        Args:
            key: The example's.

        Raises:
            ConfigError: There is no such example.
            DataError: It cannot be decoded.
        """
        return self.images([key])[key]

    def images(self, keys: Sequence[str]) -> "dict[str, Image]":
        """Returns images by key, read with as few requests as they need.

        Args:
            keys: Of the examples.

        Raises:
            ConfigError: One is of no example.
            DataError: One cannot be decoded.
        """
        return run_contents.images(self.folder, keys)

    def __repr__(self) -> str:
        states = ", ".join(f"{one.stage} {one.state}" for one in self.status)
        return f"raygrad.Run({self._folder!r}): {states or 'nothing yet'}"

    def _repr_html_(self) -> str:
        return standing_html(self.folder, self.status)

    @property
    def _is_begun(self) -> bool:
        return pipeline.stored_config(self._folder) is not None

    def _existing(self, section: str, given: Mapping[str, Any]) -> StudyConfig:
        config = replace(settings.existing(self._folder), wait_s=self._wait_s)
        return replace(config, **{section: settings.section_with(config, section, given)})


@contextlib.contextmanager
def _stage() -> Iterator[None]:
    """What a stage runs in, as a command does: Ray that it starts ends with it."""
    with patience.of_a_command(), session():
        yield


def _names(given: Names) -> tuple[str, ...]:
    """Returns names of data, one or several, as strings."""
    several = (given,) if isinstance(given, str | PurePath) else given
    return tuple(os.fspath(one) for one in several)
