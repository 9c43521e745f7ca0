"""What a recipe wants measured while it trains, and the tables that come of it."""

from collections.abc import Sequence

import pyarrow as pa
from torch import nn

from raygrad.config import TrainConfig
from raygrad.data.index import Index, write_table
from raygrad.runs import score_table
from raygrad.storage import files
from raygrad.training.dynamics import Dynamics
from raygrad.training.examples import Examples
from raygrad.training.loop import device_of
from raygrad.training.observers import Observer
from raygrad.training.preprocess import Normalize
from raygrad.training.probe import Bound, Probe, check_gradients
from raygrad.training.streamed_examples import StreamedExamples

DYNAMICS_FILE = "dynamics.parquet"


class Measurements:
    """The observers that a recipe asks for.

    Args:
        config: `dynamics`, `probe_size`, `bound_epochs`, `bound_batches` and `loss` are used.
        network: The network to be trained.
        train: The training split, on the network's device.
        normalize: Preprocessing of images.

    Raises:
        ConfigError: The network cannot have the per-example gradients that are to be measured.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        train: Examples | StreamedExamples,
        normalize: Normalize,
    ) -> None:
        if config.probe_size or config.bound_epochs:
            check_gradients(network, train, normalize, config.loss)
        self._dynamics = None
        if config.dynamics:
            self._dynamics = Dynamics(len(train), device_of(network), config.dynamics_epochs)
        self._probe, self._bound = None, None
        if config.probe_size:
            self._probe = Probe(train, normalize, config.probe_size, config.seed, config.loss)
        if config.bound_epochs:
            self._bound = Bound(train, normalize, config, config.seed)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """What a `TrainingLoop` is to be given."""
        return tuple(o for o in (self._dynamics, self._probe, self._bound) if o is not None)

    def write(self, folder: str, keys: Sequence[str]) -> None:
        """Writes dynamics.parquet, probe.parquet and bound.parquet, those that were measured.

        Args:
            folder: The URL of the folder.
            keys: The keys of the training examples, in their order.
        """
        if self._dynamics is not None:
            columns = {"key": pa.array(keys, pa.string()), **self._dynamics.columns()}
            write_table(files.join(folder, DYNAMICS_FILE), pa.table(columns))
        if self._probe is not None:
            write_table(files.join(folder, "probe.parquet"), self._probe.table(keys))
        if self._bound is not None:
            write_table(files.join(folder, "bound.parquet"), self._bound.table())


def write_dynamics_scores(
    dynamics: pa.Table, index: Index, url: str, provenance: dict[str, str]
) -> None:
    """Writes dynamics as a score table, one part a shard, keyed like all score tables.

    Args:
        dynamics: What `Measurements.write` wrote: key and columns, one row a training example.
        index: The data set.
        url: The folder of the score table.
        provenance: What the dynamics came from.
    """
    rows = index.rows("train").select(["key", "shard", "label"])
    columns = dynamics.column_names[1:]
    # An inner join drops rows in no particular order; positions keep the index's.
    at = pa.compute.index_in(rows["key"].cast(pa.string()), value_set=dynamics["key"])
    for name in columns:
        rows = rows.append_column(name, dynamics[name].take(at))
    rows = rows.filter(pa.compute.is_valid(at))
    shards = rows["shard"].unique().to_pylist()
    for shard in shards:
        part = rows.filter(pa.compute.equal(rows["shard"], shard))
        score_table.write_part(url, shard, part, provenance)
    score_table.write_manifest(url, shards, provenance, 0.0)
