"""What all connections to other servers share: whom they trust, and why one failed, in words."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from functools import lru_cache
from socket import gaierror

import certifi

UNREACHABLE = "cannot be reached"
NO_ADDRESS = "has a name that cannot be resolved"
LATE = "did not answer in time"
NO_TLS = "did not answer in TLS; perhaps its address begins with http://, not https://"
TRUST_IT = (
    "let the backend trust the authority that issued the certificate (SSL_CERT_FILE), or correct "
    "the address, and restart the backend."
)


def tls_context() -> ssl.SSLContext:
    """Trusts the system's authorities (and ``SSL_CERT_FILE``'s) and those of certifi."""
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=1)
def _context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()  # reads hundreds of certificates
    context.load_verify_locations(certifi.where())
    return context


def root_failure(error: BaseException) -> str | None:
    """Why no connection could be made, to follow the server's name; None for other causes.

    Libraries wrap the cause in errors of their own.
    """
    for cause in _causes(error):
        match cause:
            case gaierror() | UnicodeError():
                return NO_ADDRESS
            case ssl.SSLCertVerificationError():
                return (
                    f"has a certificate that is not accepted ({cause.verify_message.rstrip('.')})"
                )
            case ssl.SSLError():
                return NO_TLS
            case TimeoutError():
                return LATE
    return None


def is_untrusted(error: BaseException) -> bool:
    """Whether the server's certificate was not accepted."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set()
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        # httpcore hides the cause (`from None`), which is still the context.
        inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting += [other for other in inner if isinstance(other, BaseException)]
