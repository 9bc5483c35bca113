"""Faults: what may go wrong in a job, in a sentence, and whether to try again."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from sqlalchemy.exc import DBAPIError

from cdal.backend.client import LabelStudioError
from cdal.backend.image_error import ImagesAwayError
from cdal.backend.labeling import LabelingError
from cdal.backend.settings import SettingsError
from cdal.models import ModelError
from cdal.selectors import PoolError

# A person can mend these; their messages are written for people.
TOLD = (LabelStudioError, ImagesAwayError, LabelingError, ModelError, PoolError, SettingsError)

STORAGE = (DBAPIError, sqlite3.Error, OSError, SafetensorError)
"""What a full, read-only, damaged or locked data folder or database makes the libraries raise."""

# Asking again for the same will be refused again, unless a task was deleted meanwhile.
_REFUSED = frozenset({400, 405, 409, 413, 422})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job could not be done.

    Attributes:
        reason: one sentence for people, without secrets.
        passes: it is none of the job's own, and passes when what it needs is there again.
        again: whether trying again may help though the job itself is refused.
        known: False for an error that nobody has foreseen.
        label_studio: whether it is Label Studio that was away or refused.
    """

    reason: str
    passes: bool = False
    again: bool = False
    known: bool = True
    label_studio: bool = False


def fault_of(error: Exception) -> Fault:
    """What an error that ended a job comes to."""
    if isinstance(error, LabelStudioError):
        refused = error.status in _REFUSED
        again = error.status == 400
        return Fault(str(error), passes=not refused, again=again, label_studio=True)
    if isinstance(error, ImagesAwayError):
        return Fault(str(error), passes=True)
    if isinstance(error, TOLD):
        return Fault(str(error))
    if isinstance(error, torch.OutOfMemoryError):
        return Fault("The GPU has no memory left even for a single image.", passes=True)
    if isinstance(error, STORAGE):
        return Fault(storage_problem(error), passes=True)
    return Fault(f"Internal error, see the log: {type(error).__name__}", known=False)


def storage_problem(error: Exception) -> str:
    """What is wrong with the data folder or the database, in a sentence."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).lower()
    if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (
        "disk is full" in text or "no space left" in text or "file too large" in text
    ):
        return "The disk of the data folder is full; make room, and it goes on by itself."
    if "readonly" in text or "read-only" in text or isinstance(cause, PermissionError):
        return "The data folder cannot be written; mend its permissions, and it goes on by itself."
    if "malformed" in text or "not a database" in text:
        return (
            "The database is damaged: stop the backend and restore a backup of the data folder; "
            "docs/operations.md says how."
        )
    if "locked" in text:
        return "The database is locked by another program for too long."
    if isinstance(cause, OSError) and cause.strerror:
        return f"The data folder cannot be used: {cause.strerror}."
    return f"The database or the data folder cannot be used: {type(cause).__name__}."
