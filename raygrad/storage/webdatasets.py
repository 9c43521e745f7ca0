"""For loops of your own: webdataset reads ``s3://`` through the same storage layer as raygrad."""

from typing import Any

from webdataset.gopen import gopen_schemes

from raygrad.errors import ConfigError
from raygrad.storage import files

_SCHEME = "s3"


def register() -> None:
    """Lets ``webdataset.WebDataset("s3://bucket/train-{0000..0015}.tar")`` read S3.

    Retries, resumed reads, custom endpoints and credentials are those of `raygrad.storage.files`;
    without this, webdataset starts an external command for every shard. Call it once in every
    process that opens shards, before it does.
    """
    gopen_schemes[_SCHEME] = _open


def _open(url: str, mode: str = "rb", bufsize: int = 8192, **options: Any) -> Any:
    del bufsize, options  # of external commands
    if mode[0] != "r":
        raise ConfigError(f"shards must be written with raygrad export, got mode {mode!r}.")
    return files.open_input(url)
