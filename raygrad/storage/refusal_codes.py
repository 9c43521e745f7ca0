"""What S3 says when it refuses who asks, whatever is asked for; it needs no client to be known."""

SIGN_IN = "Sign in again (aws sso login), or set a fresh AWS_SESSION_TOKEN with its keys."
SET_CLOCK = "Set this machine's clock."
REMEDIES = {
    "ExpiredToken": SIGN_IN,
    "ExpiredTokenException": SIGN_IN,
    "TokenRefreshRequired": SIGN_IN,
    "InvalidToken": SIGN_IN,
    "RequestExpired": SET_CLOCK,
    "RequestTimeTooSkewed": SET_CLOCK,
}
"""By the code of the refusal, what is to be done."""
OF_CREDENTIALS = frozenset(REMEDIES) | {
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnauthorizedAccess",
}
"""Codes of expired or unknown credentials and of clocks."""


def names_credentials(said: str) -> bool:
    """Tells whether what an error said is a refusal of who asks, and not of an object.

    Args:
        said: Its text, which holds the code.
    """
    return any(code in said for code in OF_CREDENTIALS)
