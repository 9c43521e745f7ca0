"""Looks for credentials in files and objects."""

from collections.abc import Iterator
from pathlib import Path

from tests.storage.s3_server import ACCESS_KEY, SECRET_KEY

PLANTED = [text.encode() for text in (ACCESS_KEY, SECRET_KEY)]


def files_that_tell(folder: Path) -> Iterator[Path]:
    """Yields the files under a folder that hold a planted credential."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and tells(path.read_bytes()):
            yield path


def objects_that_tell(client, bucket: str, prefix: str) -> Iterator[str]:
    """Yields the objects under a prefix that hold a planted credential."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page["Contents"]:
            if tells(client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()):
                yield found["Key"]


def tells(content: bytes) -> bool:
    """Tells whether a planted credential is in some bytes."""
    return any(planted in content for planted in PLANTED)
