"""Images within the task data itself: addresses that begin with ``data:``, read as browsers do.

The rules are those of the Fetch standard ("data: URL processor") and of its "forgiving" base64.
"""

from __future__ import annotations

import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from cdal.backend.errors import ImageError, LargerError

_AROUND = "".join(map(chr, range(0x21)))  # control characters and spaces, which browsers strip
_IN_ADDRESSES = re.compile("[\t\n\r]")  # what browsers remove from any address
_WHITE_SPACE = b"\t\n\f\r "
_ALPHABET = re.compile(rb"[A-Za-z0-9+/]*")
_BASE64 = re.compile(r"; *base64 *$", re.IGNORECASE)


def is_embedded(value: object) -> bool:
    """Whether a task's data holds the image itself."""
    # Few characters are looked at: it may be one of millions.
    start = _IN_ADDRESSES.sub("", value[:64].lstrip(_AROUND)) if isinstance(value, str) else ""
    return start[:5].lower() == "data:"


def embedded_bytes(value: str, max_bytes: int) -> bytes:
    """The file in an address for which `is_embedded` is true. Its type is not believed.

    Raises:
        LargerError: it is larger than `max_bytes`.
        ImageError: it is not valid.
    """
    address = _IN_ADDRESSES.sub("", value.strip(_AROUND)).partition("#")[0]
    header, comma, body = address.partition(",")
    if not comma:
        raise ImageError("The image in the task's data has no comma before its content.")
    if len(body) > 4 * max_bytes:  # base64, with every character percent-encoded
        raise LargerError(max_bytes)
    try:
        data = unquote_to_bytes(body)
    except UnicodeEncodeError:  # half of a character
        raise ImageError("The image in the task's data is not text.") from None
    if _BASE64.search(header):
        data = _decode(data)
    if len(data) > max_bytes:
        raise LargerError(max_bytes)
    return data


def _decode(encoded: bytes) -> bytes:
    encoded = encoded.translate(None, _WHITE_SPACE)
    if len(encoded) % 4 == 0:
        encoded = encoded.removesuffix(b"=").removesuffix(b"=")
    if not _ALPHABET.fullmatch(encoded) or len(encoded) % 4 == 1:
        raise ImageError("The image in the task's data is not valid base64.")
    return b64decode(encoded + b"=" * (-len(encoded) % 4))
