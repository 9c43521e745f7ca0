"""Reading one shard's headers and labels: what it holds, where, and what is wrong with it.

Only headers and label members are read, never pixels. Nothing in a tar is extracted, imported or
unpickled: a member is a name, a place and, where it is a label, a few bytes of text.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raygrad.data.hidden import find_hidden
from raygrad.data.label_rules import MAX_LABEL_BYTES, LabelRule
from raygrad.data.signatures import CODECS, HEAD_BYTES, UNTOLD, kind_of
from raygrad.data.tar_ends import end_problem
from raygrad.storage import files

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png")
"""What the part of a member's name after the key must be, in any case, for it to be an image."""

OTHER_IMAGE_EXTENSIONS = ("jfif", "jpe", "webp", "gif", "bmp", "tif", "tiff")
"""Also images, of a key that has none of `IMAGE_EXTENSIONS`: beside one they are masks or previews,
which were always passed over."""

MAX_KEY_BYTES = 4096
_BY_CLS = LabelRule()
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)

_TAR_ENDING = re.compile(
    r"(?:\.tar(?:\.(?:gz|zst|zstd|bz2|xz|lz4))?|\.(?:tgz|tzst|tbz2?|txz))?(?:\?.*)?$", re.IGNORECASE
)

SCAN_SCHEMA = pa.schema(
    [("key", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("label", pa.string())]
)


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
    compression: str = ""
    """The codec that the file is compressed with, where it is."""
    hidden: tuple[int, str] = (0, "")
    """How many hidden members were left out, and the name of the first."""


@dataclass(slots=True)
class _Group:
    """The members of one key."""

    image: tuple[int, int] | None = None
    extension: str = ""
    other_image: tuple[int, int] | None = None
    other_extension: str = ""
    label: bytes | None = None
    problem: str = ""
    others: list[str] = field(default_factory=list)

    def images_of_no_key(self) -> list[str]:
        """Returns the endings of images that its key does not have, where it has no own."""
        if self.image is not None or self.other_image is not None:
            return []
        known = (*IMAGE_EXTENSIONS, *OTHER_IMAGE_EXTENSIONS)
        return [one for one in self.others if one.rpartition(".")[2] in known]


def split_name(name: str) -> tuple[str, str] | None:
    """Returns key and extension of a member's name as WebDataset does, or None if it has neither.

    The key ends at the first dot of the last part of the name: ``a.b/c.seg.png`` is ``a.b/c`` and
    ``seg.png``. Hidden files (``a/._c.jpg``) are no examples.
    """
    match = _KEY_AND_EXTENSION.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def scan_shard(url: str, labels: LabelRule = _BY_CLS, image: str = "") -> ShardScan:
    """Reads the headers and labels of a shard.

    Members of a key need not be neighbours. A second image of a key is a duplicate: the first
    stays, the others are rejects. Members that are neither image nor label are passed over, as
    are names without an extension; hidden ones are counted.

    Args:
        url: The tar.
        labels: Where labels stand.
        image: The extension of the members that are the images, such as ``seg.png``; by default
            those of `IMAGE_EXTENSIONS`, or else of `OTHER_IMAGE_EXTENSIONS`.

    Raises:
        DataError: The file cannot be read at all. A tar that is cut or garbage does not raise;
            `damage` says so.
    """
    with files.open_input(url) as stream:
        num_bytes = stream.size()
        reader = _MemberReader(stream, num_bytes)
        groups = _Groups(labels, image.lower())
        hasher = hashlib.blake2b(digest_size=16)
        for member in reader.members():
            hasher.update(_fingerprint(member))
            groups.add(member, reader, hasher)
        hasher.update(str(num_bytes).encode())
    rows, rejects = [], []
    shard = tar_stem(url)
    for (key, repeat), group in groups.by_key.items():
        label = labels.label(key, group.label, shard)
        reason = _problem(key, repeat, group, labels, label)
        if reason:
            # Names with dots, such as cat.0.png and cat.1.png, are one key and many images.
            several = group.images_of_no_key()
            names = [f"{key}.{one}" for one in several] if len(several) > 1 else [key]
            rejects += [(_printable(name), reason) for name in names]
        else:
            place = group.image or group.other_image
            assert place is not None
            rows.append({"key": key, "offset": place[0], "size": place[1], "label": label})
    damage = reader.damage
    if damage is None and not groups.by_key:
        damage = "the tar holds no example"
    return ShardScan(
        pa.Table.from_pylist(rows, SCAN_SCHEMA),
        rejects,
        num_bytes,
        hasher.hexdigest(),
        damage,
        reader.compression,
        groups.hidden,
    )


def tar_stem(url: str) -> str:
    """Returns the name of a tar's file without its ending, ``.tar``, ``.tar.gz`` or such."""
    return _TAR_ENDING.sub("", url.rsplit("/", 1)[-1])


class _MemberReader:
    """Walks a tar's members and notices where it stops being whole."""

    def __init__(self, stream: Any, num_bytes: int) -> None:
        self._stream, self._num_bytes = stream, num_bytes
        self.damage: str | None = None
        self.compression = ""

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
        self.damage = end_problem(self._stream, end, self._num_bytes)

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Returns the content of a member."""
        position = self._stream.tell()
        self._stream.seek(member.offset_data)
        content = self._stream.read(member.size)
        self._stream.seek(position)
        return bytes(content)

    def _kind(self, error: Exception) -> str:
        """Returns what a file is that is no whole tar, by its first bytes where they tell."""
        self._stream.seek(0)
        head = bytes(self._stream.read(HEAD_BYTES))
        kind = kind_of(head)
        self.compression = CODECS.get(kind, "")
        if kind in UNTOLD or kind == "a tar":
            return f"the file is no whole tar: {error}"
        return f"the file is no whole tar but {kind}"


class _Groups:
    """The members of a tar by their keys."""

    def __init__(self, labels: LabelRule, image: str) -> None:
        self.by_key: dict[tuple[str, int], _Group] = {}
        self.hidden = (0, "")
        self._label = labels.extension
        self._images = (image,) if image else IMAGE_EXTENSIONS
        self._others = () if image else OTHER_IMAGE_EXTENSIONS

    def add(self, member: tarfile.TarInfo, reader: _MemberReader, hasher: Any) -> None:
        """Puts a member to its key; a further image or label of a key opens a further group."""
        name = member.name
        if find_hidden(name) is not None:
            if not member.isdir():
                self.hidden = (self.hidden[0] + 1, self.hidden[1] or _printable(name))
            return
        parts = split_name(name)
        if parts is None or member.isdir():
            return
        key, extension = parts
        is_image, is_label = extension in self._images, extension == self._label
        is_other = extension in self._others and not is_label
        repeat = 0
        while (group := self.by_key.setdefault((key, repeat), _Group())) and (
            (is_image and group.extension == extension)
            or (is_label and group.label is not None)
            or (is_other and group.other_extension == extension)
        ):
            repeat += 1
        place = (member.offset_data, member.size)
        if not member.isreg() or member.issparse():
            group.problem = f".{extension} is a link, a sparse file or a device"
        elif is_image and group.image is not None:
            group.problem = f"two images, .{group.extension} and .{extension}"
        elif is_image:
            group.image, group.extension = place, extension
        elif is_label and member.size > MAX_LABEL_BYTES:
            group.problem = f".{extension} of {member.size} bytes is no label"
        elif is_label:
            group.label = reader.read(member)
            hasher.update(group.label)
        elif is_other and group.other_image is None:
            group.other_image, group.other_extension = place, extension
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
    image = group.image or group.other_image
    others_in_the_way = set(group.others).intersection(OTHER_IMAGE_EXTENSIONS)
    if group.image is None and image and others_in_the_way:
        return f"two images, .{group.other_extension} and .{min(others_in_the_way)}"
    if image is None:
        others = f", only .{', .'.join(group.others[:3])}" if group.others else ""
        return f"no image{others}"
    if image[1] == 0:
        return "image is empty"
    if not label and not labels.is_table:
        return labels.problem(group.label)
    return ""


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
