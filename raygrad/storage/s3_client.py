"""The one client of S3: reads, listings and writes, all with the same settings.

Endpoint, region and credentials come from the usual AWS environment variables and files, never from
a run folder.
"""

import contextlib
import functools
import os
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.session
from botocore.client import Config
from botocore.exceptions import BotoCoreError
from botocore.utils import parse_timestamp

from raygrad.errors import ConfigError
from raygrad.storage import s3_access, s3_errors

_VARIABLES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_NO_SIGN_REQUEST",
    "AWS_REQUEST_PAYER",
)


def client() -> Any:
    """Returns this process's boto3 client; a forked process gets its own."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _client(os.getpid(), endpoint, settings())


def settings() -> tuple[str | None, ...]:
    """Returns what the environment says of S3: other settings are another client."""
    return tuple(os.environ.get(name) for name in _VARIABLES)


@functools.lru_cache(maxsize=4)
def _client(pid: int, endpoint: str | None, settings: tuple[str | None, ...]) -> Any:
    del pid, settings  # they only tell clients apart
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"max_attempts": 3, "mode": "standard"},
        max_pool_connections=64,
    )
    # A session of its own: the default one keeps the first credentials it saw for ever.
    session = boto3.session.Session(botocore_session=_botocore_session())
    try:
        return s3_access.heeding(session.client("s3", endpoint_url=endpoint, config=config))
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        raise ConfigError(
            f"AWS_ENDPOINT_URL must be a URL such as http://127.0.0.1:9000, got {endpoint!r}. "
            "Write http:// or https:// before it."
        ) from error


def _botocore_session() -> botocore.session.Session:
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return session


def moment(said: str | float) -> datetime:
    """Returns the moment that a server names, in words or as seconds since 1970, as botocore does.

    Its own reading, which takes any form, is five sixths of the time that a name of a listing
    takes; and nobody here asks when an object was written.
    """
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        if isinstance(said, str):
            with contextlib.suppress(ValueError, TypeError):
                found = read(said)
                if found.tzinfo is not None:
                    return found
    return parse_timestamp(said)


def endpoint_url() -> str:
    """Returns where the client sends its requests, the same for reads and listings.

    Raises:
        ConfigError: The settings make no client.
    """
    try:
        return str(client().meta.endpoint_url)
    except BotoCoreError as error:
        raise (s3_errors.final_error(error, "s3://", may_pass=False) or error) from error
