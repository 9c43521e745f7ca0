"""What the run knows of its examples already, to stand beside an audit's own judgement."""

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.config import StudyConfig
from raygrad.runs.layout import RunLayout
from raygrad.runs.score_table import MANIFEST, read_score_table, table_parts
from raygrad.storage import files
from raygrad.storage.manifest import digest, read_json

AUM = "aum"


@dataclass(frozen=True)
class Beside:
    """Score tables of a run that are complete: gradient norms, and AUM of a watched training."""

    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The columns that are taken from each table, by the table's folder."""

    @property
    def digest(self) -> str:
        """A hash of what the tables came from; that of nothing where there is none."""
        came_from = [read_json(files.join(url, MANIFEST))["provenance"] for url in self.tables]
        return digest([came_from, [*self.tables.values()]])

    def columns(self, keys: pa.ChunkedArray) -> dict[str, pa.Array]:
        """Returns each column at some keys, null where it has no number of an example.

        Args:
            keys: Of the examples, any number.
        """
        found = {}
        for url, names in self.tables.items():
            table = read_score_table(url, ["key", *names])
            at = pc.index_in(keys, value_set=table["key"].combine_chunks())
            part = table.take(at.combine_chunks() if isinstance(at, pa.ChunkedArray) else at)
            for name in names:
                values = part[name].cast(pa.float64()).combine_chunks()
                finite = pc.fill_null(pc.is_finite(values), False)
                found[name] = pc.if_else(finite, values, pa.nulls(len(values), pa.float64()))
        return found


def known_of_run(config: StudyConfig) -> Beside:
    """Returns the gradient norms of the run's scored network, and the AUM of its training.

    Tables that are not complete are left out.

    Args:
        config: The run.
    """
    layout = RunLayout(config.run)
    scores = layout.scores(config.scored_network)
    watched = layout.scores(f"{config.train.network}-dynamics")
    tables = {}
    for url, wanted in ((scores, "grad_"), (watched, AUM)):
        if not files.exists(files.join(url, MANIFEST)):
            continue
        with files.open_input(table_parts(url)[0]) as part:
            names = pq.read_schema(part).names
        taken = tuple(name for name in names if name.startswith(wanted))
        if taken:
            tables[url] = taken
    return Beside(tables)
