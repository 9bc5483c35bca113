"""The images that a model version has learnt from, and its judgements of labelled images.

They decide on which images two versions can be compared: on those that neither has learnt from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from sqlalchemy.orm import Session

from cdal.backend.store import tables

HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class VersionImages:
    """What is recorded of a model version; images are named by the hashes of their files.

    Attributes:
        learnt: images that it has learnt from, or a version whose weights it began with.
        judged: the class, as an index among the version's, that a head of its recipe gives an
            image that this head has not learnt from; empty where there was no cross-validation.
    """

    learnt: frozenset[bytes]
    judged: Mapping[bytes, int] = field(default_factory=dict)

    @classmethod
    def read(cls, session: Session, version_id: int | None) -> Self | None:
        """The record of a version; None if there is none, as of versions before this record."""
        if version_id is None:
            return None
        row = session.get(tables.VersionImages, version_id)
        if row is None:
            return None
        classes = np.frombuffer(row.judgements, "<u2").tolist()
        judged = dict(zip(_hashes(row.judged), classes, strict=True))
        return cls(frozenset(_hashes(row.learnt)), judged)

    def row(self, version_id: int) -> tables.VersionImages:
        """The record as a row of the store."""
        return tables.VersionImages(
            model_version_id=version_id,
            learnt=_joined(sorted(self.learnt)),
            judged=_joined(self.judged),
            judgements=np.array(list(self.judged.values()), "<u2").tobytes(),
        )


def _joined(hashes: Iterable[bytes]) -> bytes:
    return b"".join(hashes)


def _hashes(joined: bytes) -> list[bytes]:
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]
