"""An index on disk or S3, asked for what it comes to, and never in memory as a whole."""

from collections import Counter
from collections.abc import Iterator
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raygrad.data.columns import PIECE, digest_of_pieces
from raygrad.data.index import DIGESTED
from raygrad.errors import ConfigError
from raygrad.storage import files
from raygrad.storage.damage import whole_parquet


class StoredIndex:
    """The examples of an index that is written; a context that holds its file open.

    Args:
        data_url: The folder that `write_index` wrote.

    Raises:
        ConfigError: There is no index.
    """

    def __init__(self, data_url: str) -> None:
        url = files.join(data_url, "index.parquet")
        if not files.exists(url):
            raise ConfigError(f"an index must exist, got none in {data_url}. Do: raygrad prepare.")
        self._stream = files.open_input(url)
        with whole_parquet(url):
            self._file = pq.ParquetFile(self._stream)

    def __enter__(self) -> "StoredIndex":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._stream.close()

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return int(self._file.metadata.num_rows)

    def digest(self) -> str:
        """Returns what `Index.digest` is of the same examples."""
        return digest_of_pieces(lambda name: self._pieces([name]), DIGESTED)

    def labels(self) -> dict[str, Counter[int]]:
        """Returns, for each split that has examples, how many of them have each label."""
        found: dict[str, Counter[int]] = {}
        for piece in self._pieces(["split", "label"]):
            for split in pc.unique(piece["split"]).to_pylist():
                rows = piece.filter(pc.equal(piece["split"], split))
                counts = pc.value_counts(rows["label"]).to_pylist()
                found.setdefault(split, Counter()).update(
                    {one["values"]: one["counts"] for one in counts}
                )
        return found

    def _pieces(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        for piece in self._file.iter_batches(batch_size=PIECE, columns=names):
            if piece.num_rows:
                yield piece
