"""A fetched file as the cache keeps it: how old it is, and how to ask whether it has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

FRESH_S = 24 * 3600.0
"""A file that was fetched longer ago may have been replaced, and is asked for again."""

_LENGTH_BYTES = 4
_LONGEST = 500

_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A fetched file.

    Attributes:
        data: the file.
        fetched_at: seconds since 1970 when its host last said that this is the file.
        conditions: the headers of a request that its host answers with 304 if this still is the
            file; empty where the host gave nothing to ask by.
    """

    data: bytes
    fetched_at: float
    conditions: Mapping[str, str]

    @classmethod
    def of(cls, data: bytes, fetched_at: float, headers: Mapping[str, str]) -> Self:
        """A file as it was fetched with these headers, which may be anything."""
        conditions = {
            asked: headers[given]
            for given, asked in _CONDITIONS.items()
            if 0 < len(headers.get(given, "")) <= _LONGEST
            and headers[given].isascii()
            and headers[given].isprintable()
        }
        return cls(data, fetched_at, conditions)

    def is_fresh(self, at: float) -> bool:
        """Whether it need not be asked for again; a clock that was ahead makes nothing fresh."""
        return 0 <= at - self.fetched_at < FRESH_S

    def packed(self) -> bytes:
        """As bytes, which `unpacked` reads."""
        about = json.dumps([self.fetched_at, dict(self.conditions)]).encode()
        return len(about).to_bytes(_LENGTH_BYTES) + about + self.data

    @classmethod
    def unpacked(cls, entry: bytes) -> Self:
        """Read what `packed` made."""
        start = _LENGTH_BYTES + int.from_bytes(entry[:_LENGTH_BYTES])
        fetched_at, conditions = json.loads(entry[_LENGTH_BYTES:start])
        return cls(entry[start:], fetched_at, conditions)
