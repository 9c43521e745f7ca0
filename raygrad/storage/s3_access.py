"""Buckets that are public, and buckets whose requester pays: asked for by the usual variables.

``AWS_NO_SIGN_REQUEST=YES`` reads a public bucket without credentials, and
``AWS_REQUEST_PAYER=requester`` agrees to pay for what is read, as GDAL and others call them. They
are variables and no flags because they belong to the machine's access, not to a run: the next
machine may have credentials.
"""

import os
from typing import Any

from botocore import UNSIGNED

from raygrad.errors import ConfigError

_PAID = (
    "GetObject", "HeadObject", "ListObjectsV2", "PutObject", "CreateMultipartUpload", "UploadPart",
    "CompleteMultipartUpload", "AbortMultipartUpload",
)  # fmt: skip
_YES, _NO = ("yes", "true", "1", "on"), ("", "no", "false", "0", "off")


def heeding(client: Any) -> Any:
    """Returns a client of boto3 whose every request does what the variables say then."""
    client.meta.events.register("choose-signer.s3", _signer)
    for operation in _PAID:
        client.meta.events.register(f"provide-client-params.s3.{operation}", _agree)
    return client


def _signer(**_: Any) -> Any:
    """Returns that a request is not signed, where that is asked for."""
    said = os.environ.get("AWS_NO_SIGN_REQUEST", "").strip().lower()
    if said not in _YES + _NO:
        raise ConfigError(f"AWS_NO_SIGN_REQUEST must be YES or NO, got {said!r}.")
    return UNSIGNED if said in _YES else None


def _agree(params: dict[str, Any], **_: Any) -> dict[str, Any] | None:
    """Returns a request's parameters with the consent to pay, where that is asked for."""
    payer = os.environ.get("AWS_REQUEST_PAYER", "").strip().lower()
    if payer not in ("", "requester"):
        raise ConfigError(f"AWS_REQUEST_PAYER must be requester, got {payer!r}.")
    return {"RequestPayer": "requester"} | params if payer else None
