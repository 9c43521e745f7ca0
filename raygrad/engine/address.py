"""Whether a Ray answers at an address, asked before Ray waits two minutes for one that does not."""

import os
import socket

from raygrad.errors import ConfigError, ResourceError

TIMEOUT_S = 5.0
"""A Ray that lives answers in milliseconds, across the world in less than a second."""

# HTTP/2 begins with these bytes and a frame of settings, here an empty one; gRPC, which Ray speaks,
# is HTTP/2, and whoever speaks it answers with settings of its own (RFC 9113, section 3.4).
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS, _TYPE_AT, _HEAD_BYTES = 4, 3, 9


def check_answers(address: str) -> None:
    """Raises unless a Ray answers at an address.

    Args:
        address: ``host:port`` or ``ray://host:port``; ``auto`` is left to Ray, which looks at this
            machine alone.

    Raises:
        ConfigError: It is no address.
        ResourceError: Nobody answers, or somebody who is no Ray.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"RAY_ADDRESS must be HOST:PORT, got {address!r}. "
            "Mend it, or unset it to start a Ray on this machine."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S) as line:
            found = "" if _speaks_grpc(line) else "somebody who is no Ray"
    except (OSError, OverflowError) as error:
        found = f"nobody ({error})"
    if found:
        raise ResourceError(
            f"a Ray must answer at RAY_ADDRESS {address} within {TIMEOUT_S:g} s, got {found}. "
            "Start it, mend the address, or unset it to start a Ray on this machine."
        )


def _speaks_grpc(line: socket.socket) -> bool:
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0", "false"):
        return True  # it would not answer to plain bytes
    line.sendall(_HELLO)
    answer = b""
    while len(answer) < _HEAD_BYTES:
        more = line.recv(_HEAD_BYTES - len(answer))
        if not more:
            return False
        answer += more
    return answer[_TYPE_AT] == _SETTINGS
