"""Images within the task data; what is shown and what is not was seen in Chromium."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote, quote_from_bytes

import pytest

from cdal.backend.errors import ImageError
from cdal.backend.images.embedded import embedded_bytes, is_embedded

FILE = bytes(range(256))[::-1] + b"\0"  # its base64 needs padding, and has + and /
ENCODED = b64encode(FILE).decode()
LINES = "\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76))


@pytest.mark.parametrize(
    "address",
    [
        f"data:image/png;base64,{ENCODED}",
        f"DATA:IMAGE/PNG;BASE64,{ENCODED}",
        f"data:image/png;base64,{LINES}",
        "data:image/png;base64," + LINES.replace("\n", "\r\n"),
        "data:image/png;base64," + LINES.replace("\n", "%0A"),
        f"data:image/png;base64, {ENCODED[:20]} {ENCODED[20:]} ",
        f" \n data:image/png;base64,{ENCODED}\n",
        f"da\tta:image/png;base64,{ENCODED}",
        f"data:image/png;charset=utf-8;base64,{ENCODED}",
        f"data:image/png;name=a b.png;base64,{ENCODED}",
        f"data:image/png; base64,{ENCODED}",
        f"data:image/png;ba\nse64,{ENCODED}",
        "data:image/png," + quote_from_bytes(FILE, safe="").replace("%F", "%\nF"),
        "data:image/png;base64," + ENCODED.rstrip("="),
        "data:image/png;base64," + quote(ENCODED, safe=""),
        f"data:;base64,{ENCODED}",
        f"data:application/octet-stream;base64,{ENCODED}",
        f"data:image/png;base64,{ENCODED}#fragment",
        "data:image/png," + quote_from_bytes(FILE, safe=""),
        "data:," + quote_from_bytes(FILE, safe=""),
    ],
)
def test_what_browsers_show(address: str) -> None:
    assert is_embedded(address)
    assert embedded_bytes(address, 1000) == FILE


@pytest.mark.parametrize(
    "address",
    [
        "data:image/png;base64," + ENCODED[:-3] + "*==",
        f"data:image/png;base64,{ENCODED}=",
        "data:image/png;base64," + ENCODED.rstrip("=") + "=x=",
        f"data:image/png;base64,\0{ENCODED}",
        f"data:image/png;base64,{ENCODED}?x",
        "data:image/png;base64,AAAAA",
        f"data:image/png;base64;{ENCODED}",
        "data:image/png,\ud800",
    ],
)
def test_what_they_do_not_show(address: str) -> None:
    assert is_embedded(address)
    with pytest.raises(ImageError, match="in the task's data"):
        embedded_bytes(address, 1000)


@pytest.mark.parametrize(
    "header", [f"data:base64,{ENCODED}", f"data:image/png;base64;x=y,{ENCODED}"]
)
def test_only_the_last_word_before_the_comma_may_be_base64(header: str) -> None:
    assert embedded_bytes(header, 1000) == ENCODED.encode()


def test_the_size_is_limited_before_decoding() -> None:
    assert len(embedded_bytes("data:," + "x" * 1000, 1000)) == 1000
    for body in ("x" * 1001, "%41" * 1001, "%41" * 2000):
        with pytest.raises(ImageError, match="1,000 bytes"):
            embedded_bytes(f"data:,{body}", 1000)


@pytest.mark.parametrize("value", [None, 5, "", "data", "http://x/data:", "/data/upload/1/a.png"])
def test_other_values_are_not_embedded(value: object) -> None:
    assert not is_embedded(value)
