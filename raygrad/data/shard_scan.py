"""Reading one shard's headers and labels: what it holds, where, and what is wrong with it.

Only headers and label members are read, never pixels. Nothing in a tar is extracted, imported or
unpickled: a member is a name, a place and, where it is a label, a few bytes of text.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raygrad.errors import ConfigError
from raygrad.storage import files

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")
"""What the part of a member's name after the key must be, in any case, for it to be an image."""

MAX_KEY_BYTES = 4096
MAX_LABEL_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)

SCAN_SCHEMA = pa.schema(
    [("key", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("label", pa.string())]
)


@dataclass(frozen=True)
class LabelRule:
    """Where the label of an example stands: ``cls``, ``json:FIELD`` or ``folder``."""

    text: str = "cls"

    def __post_init__(self) -> None:
        if self.text not in ("cls", "folder") and not re.fullmatch(r"json:.+", self.text):
            raise ConfigError(f"labels must be cls, json:FIELD or folder, got {self.text!r}.")

    @property
    def extension(self) -> str:
        """The extension of the members that are read, none for the key's folder."""
        return "" if self.text == "folder" else self.text.partition(":")[0]

    def label(self, key: str, content: bytes | None) -> str | None:
        """Returns the label of an example as text, or None where it has none."""
        if self.text == "folder":
            return key.rsplit("/", 2)[-2] if "/" in key else None
        if content is None:
            return None
        if self.text == "cls":
            return content.decode(errors="backslashreplace").strip()
        try:
            value = json.loads(content)[self.text.partition(":")[2]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        usable = isinstance(value, int | str) and not isinstance(value, bool)
        return str(value) if usable else None


@dataclass(frozen=True)
class ShardScan:
    """What one pass over the headers of a shard found."""

    examples: pa.Table
    """Columns of `SCAN_SCHEMA`: usable examples, their labels still as text."""
    rejects: list[tuple[str, str]]
    """Keys and reasons of the others."""
    num_bytes: int
    """Size of the tar."""
    digest: str
    """A hash of every member's name, place, size and time, and of the labels."""
    damage: str | None
    """Why the tar cannot be read to its end, or None."""


@dataclass
class _Group:
    """The members of one key."""

    image: tuple[int, int] | None = None
    extension: str = ""
    label: bytes | None = None
    problem: str = ""
    others: list[str] = field(default_factory=list)


def split_name(name: str) -> tuple[str, str] | None:
    """Returns key and extension of a member's name as WebDataset does, or None if it has neither.

    The key ends at the first dot of the last part of the name: ``a.b/c.seg.png`` is ``a.b/c`` and
    ``seg.png``. Hidden files (``a/._c.jpg``) are no examples.
    """
    match = _KEY_AND_EXTENSION.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def scan_shard(url: str, labels: LabelRule = LabelRule()) -> ShardScan:
    """Reads the headers and labels of a shard.

    Members of a key need not be neighbours. A second image of a key is a duplicate: the first
    stays, the others are rejects. Members that are neither image nor label are passed over, as
    are names without an extension.

    Args:
        url: The tar.
        labels: Where labels stand.

    Raises:
        DataError: The file cannot be read at all. A tar that is cut or garbage does not raise;
            `damage` says so.
    """
    with files.open_input(url) as stream:
        num_bytes = stream.size()
        reader = _MemberReader(stream, num_bytes)
        groups: dict[tuple[str, int], _Group] = {}
        hasher = hashlib.blake2b(digest_size=16)
        for member in reader.members():
            hasher.update(_fingerprint(member))
            _add(groups, member, reader, labels, hasher)
        hasher.update(str(num_bytes).encode())
    rows, rejects = [], []
    for (key, repeat), group in groups.items():
        label = labels.label(key, group.label)
        reason = _problem(key, repeat, group, labels, label)
        if reason:
            rejects.append((_printable(key), reason))
        else:
            assert group.image is not None
            rows.append({"key": key, "label": label} | _place(group.image))
    damage = reader.damage
    if damage is None and not groups:
        damage = "the tar holds no example"
    table = pa.Table.from_pylist(rows, SCAN_SCHEMA)
    return ShardScan(table, rejects, num_bytes, hasher.hexdigest(), damage)


class _MemberReader:
    """Walks a tar's members and notices where it stops being whole."""

    def __init__(self, stream: Any, num_bytes: int) -> None:
        self._stream, self._num_bytes = stream, num_bytes
        self.damage: str | None = None

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yields the members that are whole; sets `damage` if they do not end as a tar does."""
        end = 0
        try:
            # "r:" and not "r": offsets into a compressed tar are of no use for range reads.
            with tarfile.open(fileobj=self._stream, mode="r:", errors="surrogateescape") as tar:
                for member in tar:
                    data_end = member.offset_data + member.size * member.isreg()
                    if member.size < 0 or member.offset_data < end:
                        raise tarfile.ReadError("a member lies before the one it follows")
                    if data_end > self._num_bytes:
                        raise tarfile.ReadError(f"member {_printable(member.name)!r} is cut")
                    yield member
                    tar.members = []  # type: ignore[attr-defined]  # a header is not needed twice
                    end = data_end
                end = tar.offset
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            self.damage = self._kind(error)
            return
        self.damage = self._end_problem(end)

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Returns the content of a member."""
        position = self._stream.tell()
        self._stream.seek(member.offset_data)
        content = self._stream.read(member.size)
        self._stream.seek(position)
        return bytes(content)

    def _kind(self, error: Exception) -> str:
        self._stream.seek(0)
        if bytes(self._stream.read(2)) == b"\x1f\x8b":
            return "the file is gzip, not a plain tar; unpack it"
        return f"the file is no whole tar: {error}"

    def _end_problem(self, end: int) -> str | None:
        self._stream.seek(end)
        tail = bytes(self._stream.read(_BLOCK))
        if len(tail) < _BLOCK:
            return "the end of the archive is missing, so the tar is cut"
        if any(tail):
            return f"there is no tar header at byte {end}"
        rest = bytes(self._stream.read(4 * tarfile.RECORDSIZE))
        if any(rest):
            return f"there is data after the end of the archive at byte {end}"
        return None


def _add(
    groups: dict[tuple[str, int], _Group],
    member: tarfile.TarInfo,
    reader: _MemberReader,
    labels: LabelRule,
    hasher: Any,
) -> None:
    """Puts a member to its key; a further image or label of a key opens a further group."""
    parts = split_name(member.name)
    if parts is None or member.isdir():
        return
    key, extension = parts
    is_image, is_label = extension in IMAGE_EXTENSIONS, extension == labels.extension
    repeat = 0
    while (group := groups.setdefault((key, repeat), _Group())) and (
        (is_image and group.extension == extension) or (is_label and group.label is not None)
    ):
        repeat += 1
    if not member.isreg() or member.issparse():
        group.problem = f".{extension} is a link, a sparse file or a device"
    elif is_image and group.image is not None:
        group.problem = f"two images, .{group.extension} and .{extension}"
    elif is_image:
        group.image, group.extension = (member.offset_data, member.size), extension
    elif is_label and member.size > MAX_LABEL_BYTES:
        group.problem = f".{extension} of {member.size} bytes is no label"
    elif is_label:
        group.label = reader.read(member)
        hasher.update(group.label)
    else:
        group.others.append(extension)


def _problem(key: str, repeat: int, group: _Group, labels: LabelRule, label: str | None) -> str:
    if repeat:
        return "duplicate key within the shard"
    if not _is_utf8(key):
        return "key is not UTF-8"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"key is longer than {MAX_KEY_BYTES} bytes"
    if key.startswith("/") or ".." in key.split("/"):
        return "key leaves its folder"
    if group.problem:
        return group.problem
    if group.image is None:
        others = f", only .{', .'.join(group.others[:3])}" if group.others else ""
        return f"no image{others}"
    if group.image[1] == 0:
        return "image is empty"
    if label is None or label == "":
        return f"no label: {labels.text}"
    return ""


def _place(image: tuple[int, int]) -> dict[str, int]:
    return {"offset": image[0], "size": image[1]}


def _fingerprint(member: tarfile.TarInfo) -> bytes:
    name = member.name.encode(errors="surrogateescape")
    return name + f"\0{member.offset_data}\0{member.size}\0{member.mtime}\n".encode()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """Returns text that UTF-8 can hold, no longer than a key may be."""
    return text.encode(errors="backslashreplace").decode()[:MAX_KEY_BYTES]
