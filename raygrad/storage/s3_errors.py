"""Which answers of S3 are final, and what to do about each: one line that names what to set."""

from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from raygrad.errors import ConfigError, IncompleteError, StorageAwayError, StorageRefusedError
from raygrad.storage.refusal_codes import OF_CREDENTIALS, REMEDIES, SIGN_IN

_NOT_FOUND = ("404", "NoSuchKey", "NotFound")
_BEYOND = ("416", "InvalidRange")
_CHANGED = ("412", "PreconditionFailed", *_BEYOND)
_LATER = (408, 409, 425, 429)
"""Statuses of refusals that are none: ask again."""
_NOT_IMPLEMENTED = 501
_LATER_CODES = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException")
_ON_THE_WIRE = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    ResponseParserError,
    ChecksumError,
    FlexibleChecksumError,
    MetadataRetrievalError,
)
"""What an outage looks like; everything else of botocore's own is a matter of set-up."""
_FOR_A_MOMENT = (NoCredentialsError, CredentialRetrievalError, TokenRetrievalError)
"""What a machine's role that is asked too often looks like, too."""

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_REGION = "Set AWS_DEFAULT_REGION to the bucket's region."
_REMEDIES = {
    **REMEDIES,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "InvalidBucketName": "Check the bucket's name.",
}
_WRONG_PLACE = frozenset(c for c, remedy in _REMEDIES.items() if remedy == _REGION) | {
    "InvalidBucketName"
}
_PUBLIC = (
    "a public bucket: AWS_NO_SIGN_REQUEST=YES; where the requester pays: "
    "AWS_REQUEST_PAYER=requester."
)
_CHECK = f"Check the credentials ({_KEYS}); {_PUBLIC}"


def final_error(error: BaseException, url: str, *, may_pass: bool) -> Exception | None:
    """Returns the error to raise where asking again cannot help, None where it can.

    Args:
        error: What a request ended with.
        url: What was asked for.
        may_pass: Whether credentials that are not there may come: on a node whose role is asked
            for them, and not where a user has just started a command.
    """
    if isinstance(error, ClientError):
        return _refusal(error, url)
    if isinstance(error, FileNotFoundError | PermissionError):
        return error
    if not isinstance(error, BotoCoreError) or (may_pass and isinstance(error, _FOR_A_MOMENT)):
        return None
    if isinstance(error, SSLError):
        return None if may_pass else _not_s3(error, url)
    if isinstance(error, ResponseParserError) and not may_pass:
        return _not_s3(error, url)
    return None if isinstance(error, _ON_THE_WIRE) else _setup(error, url)


def unreachable(error: BaseException, url: str, endpoint: str) -> ConfigError:
    """Returns the error where S3 has never answered a command."""
    return ConfigError(
        f"S3 must answer at {endpoint}, got {_first_line(error)}, in {url}. "
        "Check AWS_ENDPOINT_URL and the network."
    )


def changed(url: str, what: str) -> IncompleteError:
    """Returns the error where an object was replaced while it was read."""
    return IncompleteError(
        f"an object must not change while it is read, got {what}, in {url}. "
        "Build the index again if the shard was replaced."
    )


def is_of_credentials(error: BaseException | None) -> bool:
    """Tells whether a refusal is of who asks, whatever is asked for: an expired token, a clock."""
    return isinstance(error, ClientError) and _code(error) in OF_CREDENTIALS


def refused_since(refusal: StorageRefusedError, waited_s: float) -> StorageAwayError:
    """Returns the error where a command is refused what it was given before."""
    return StorageAwayError(
        f"{refusal} It was let in before, and refused for {waited_s:g} s: mend that and run "
        "again; what is there is kept."
    )


def is_beyond_the_end(error: BaseException) -> bool:
    """Tells whether a range was refused because the object ends before it."""
    return isinstance(error, ClientError) and _code(error) in _BEYOND


def is_bare(error: BaseException) -> bool:
    """Tells whether a refusal came without its reason, as those of HEAD requests do."""
    return isinstance(error, ClientError) and _code(error) in ("400", "401", "403")


def _refusal(error: ClientError, url: str) -> Exception | None:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _NOT_FOUND:
        return FileNotFoundError(url)
    if code in _CHANGED:
        return changed(url, code)
    if code == "NoSuchBucket":
        bucket = url.split("/")[2]
        return ConfigError(
            f"the bucket must exist, got no {bucket!r}, in {url}. "
            "Check its name and AWS_ENDPOINT_URL, or make it."
        )
    if (
        code in _LATER_CODES
        or status in _LATER
        or not (300 <= status < 500 or status == _NOT_IMPLEMENTED)
    ):
        return None
    remedy = _REMEDIES.get(code, _CHECK)
    # A wrong region stays one; credentials expire, and are renewed.
    kind = ConfigError if code in _WRONG_PLACE else StorageRefusedError
    return kind(f"storage must accept the request, got {error}, in {url}. {remedy}")


def _setup(error: BotoCoreError, url: str) -> ConfigError:
    remedy = f"Set {_KEYS}; {_PUBLIC}"
    if isinstance(error, ProfileNotFound):
        remedy = "Set AWS_PROFILE to one of ~/.aws/config, or unset it."
    elif isinstance(error, PartialCredentialsError):
        remedy = f"Set all of {_KEYS}."
    elif isinstance(error, SSOError | TokenRetrievalError):
        remedy = SIGN_IN
    elif isinstance(error, ParamValidationError):
        remedy = "Check the URL: s3://BUCKET/KEY."
    elif not isinstance(error, NoCredentialsError | CredentialRetrievalError):
        remedy = "Check the AWS_* variables and ~/.aws/config."
    return ConfigError(f"S3 must be set up, got {_first_line(error)}, in {url}. {remedy}")


def _not_s3(error: BaseException, url: str) -> ConfigError:
    return ConfigError(
        f"the endpoint must speak S3, got {_first_line(error)}, in {url}. "
        "Check AWS_ENDPOINT_URL, and whether it is http:// or https://."
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") if lines else type(error).__name__
