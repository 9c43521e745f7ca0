"""Digests of what a stage was given, and the markers that say it is complete."""

import dataclasses
import hashlib
import json
from typing import Any

from raygrad.storage import files
from raygrad.storage.damage import MADE_AGAIN, damaged


def digest(value: Any) -> str:
    """Returns a stable hash, 32 hexadecimal digits, of bytes, plain values or dataclasses.

    The same on every machine and in every version of Python: it hashes canonical JSON.
    """
    if isinstance(value, bytes):
        data = value
    else:
        data = json.dumps(value, sort_keys=True, default=_plain).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_json(url: str, value: Any) -> None:
    """Writes a value as JSON, whole or not at all."""
    files.write_bytes(url, json.dumps(value, indent=1, default=_plain).encode())


def read_json(url: str, remedy: str = MADE_AGAIN) -> Any:
    """Returns what `write_json` wrote.

    Args:
        url: The file.
        remedy: What to do once a damaged file is removed.

    Raises:
        DataError: The file is no JSON.
    """
    content = files.read_bytes(url)
    try:
        return json.loads(content)
    except ValueError as error:
        raise damaged(url, "JSON", error, remedy) from error


def read_object(url: str, remedy: str = MADE_AGAIN) -> dict[str, Any]:
    """Returns an object that `write_json` wrote; see `read_json`.

    Raises:
        DataError: The file is no JSON, or no object.
    """
    value = read_json(url, remedy)
    if not isinstance(value, dict):
        raise damaged(url, "JSON of an object", repr(value)[:40], remedy)
    return value


def write_marker(url: str, inputs_digest: str, **facts: Any) -> None:
    """Marks a stage complete for inputs of this digest, with facts that later stages need."""
    write_json(url, {"inputs_digest": inputs_digest, **facts})


def read_marker(url: str) -> dict[str, Any] | None:
    """Returns a stage's marker, or None where the stage is not complete.

    Raises:
        DataError: The file is no marker.
    """
    return read_object(url) if files.exists(url) else None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no stable JSON form")
