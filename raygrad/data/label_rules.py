"""Where the label of an example stands, and how it is read there."""

import json
import re
from dataclasses import dataclass
from typing import Any

from raygrad.data.signatures import UNTOLD, kind_of
from raygrad.errors import ConfigError

MAX_LABEL_BYTES = 2**20
_TABLE = re.compile(r"(?P<url>.+\.(?:csv|tsv|parquet))(?::(?P<key>[^:/]+):(?P<label>[^:/]+))?")
_EXTENSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"))


@dataclass(frozen=True)
class LabelRule:
    """Where the label of an example stands.

    - ``cls``, ``txt``, ``label`` or any other extension: a member of the example's key, its text a
      number or the name of a class;
    - ``json:FIELD``: a field of its ``.json``, ``json:a.b`` for a field within a field;
    - ``folder``: the folder of its key; ``shard``: the name of its tar;
    - ``TABLE.csv``, ``.tsv`` or ``.parquet``: a table of keys or file names and labels, with
      ``TABLE.csv:KEY:LABEL`` to name its columns.
    """

    text: str = "cls"

    def __post_init__(self) -> None:
        usable = bool(_TABLE.fullmatch(self.text) or re.fullmatch(r"json:.+", self.text))
        extension = _EXTENSION.fullmatch(self.text) and self.text.lower() not in _IMAGES
        if not usable and (not extension or self.text.lower() == "json"):
            raise ConfigError(
                f"labels must be an extension such as cls or txt, json:FIELD, folder, shard, or a "
                f"table's name (.csv, .tsv, .parquet), got {self.text!r}."
            )

    @property
    def is_table(self) -> bool:
        """Whether labels stand in a table beside the shards."""
        return _TABLE.fullmatch(self.text) is not None

    @property
    def table(self) -> tuple[str, str | None, str | None]:
        """The table's URL and its columns of keys and labels, None where they are not named."""
        match = _TABLE.fullmatch(self.text)
        assert match is not None, self.text
        return match["url"], match["key"], match["label"]

    @property
    def names_only(self) -> bool:
        """Whether labels are names even where they look like numbers."""
        return self.text in ("folder", "shard")

    @property
    def extension(self) -> str:
        """The extension of the members that are read, none where labels stand elsewhere."""
        if self.names_only or self.is_table:
            return ""
        return self.text.partition(":")[0].lower()

    def label(self, key: str, content: bytes | None, shard: str = "") -> str | None:
        """Returns the label of an example as text, or None where it has none.

        Args:
            key: The example's key.
            content: The bytes of its label's member, None where there is no such member.
            shard: The name of its tar, without ending.
        """
        if self.text == "folder":
            parts = key.rsplit("/", 2)
            return parts[-2] if len(parts) > 1 and parts[-2] not in ("", ".", "..") else None
        if self.text == "shard":
            return shard
        if content is None or self.is_table:
            return None
        if not self.text.startswith("json:"):
            return content.decode("utf-8-sig", errors="backslashreplace").strip()
        try:
            value = _field(json.loads(content), self.text.partition(":")[2])
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return None
        usable = isinstance(value, int | str) and not isinstance(value, bool)
        return str(value) if usable else None

    def problem(self, content: bytes | None) -> str:
        """Returns why an example has no label: what its label's member is, where it has one."""
        kind = "" if content is None or not content.strip() else kind_of(content)
        known = kind not in ("", "a JSON file", *UNTOLD)
        return f"no label: {self.text}" + (f" is {kind}" if known else "")


def _field(value: Any, name: str) -> Any:
    """Returns a field by its name, or by a path of names and numbers with dots between."""
    if isinstance(value, dict) and name in value:
        return value[name]
    for part in name.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
