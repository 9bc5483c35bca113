"""Failures of the data folder and the database, in words."""

from __future__ import annotations

import errno
import sqlite3

from safetensors import SafetensorError
from sqlalchemy.exc import DBAPIError

STORAGE = (DBAPIError, sqlite3.Error, OSError, SafetensorError)
"""What the libraries raise when data folder or database is full, read-only, damaged or locked."""


def storage_problem(error: Exception) -> str:
    """What is wrong with the data folder or the database, in a sentence."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).lower()
    if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (
        "disk is full" in text or "no space left" in text or "file too large" in text
    ):
        return "The disk of the data folder is full; free some space, and the backend goes on."
    if "readonly" in text or "read-only" in text or isinstance(cause, PermissionError):
        return "The data folder cannot be written; fix its permissions, and the backend goes on."
    if "malformed" in text or "not a database" in text:
        return (
            "The database is damaged: stop the backend and restore a backup of the data folder; "
            "docs/operations.md says how."
        )
    if "locked" in text:
        return "Another program has locked the database for too long."
    if isinstance(cause, OSError) and cause.strerror:
        return f"The data folder cannot be used: {cause.strerror}."
    return f"The database or the data folder cannot be used: {type(cause).__name__}."
