"""What libraries raise, in sentences."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from sqlalchemy.exc import DatabaseError, OperationalError

from cdal.backend.errors import (
    ImageError,
    ImagesAwayError,
    LabelingError,
    LabelStudioError,
    SettingsError,
)
from cdal.backend.jobs.faults import fault_of, storage_problem
from cdal.models import ModelError
from cdal.selectors import PoolError


def of_database(message: str) -> OperationalError:
    return OperationalError("UPDATE secrets SET …", {}, sqlite3.OperationalError(message))


FULL = "The disk of the data folder is full; free some space, and the backend goes on."
READ_ONLY = "The data folder cannot be written; fix its permissions, and the backend goes on."
DAMAGED = (
    "The database is damaged: stop the backend and restore a backup of the data folder; "
    "docs/operations.md says how."
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (of_database("database or disk is full"), FULL),
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), FULL),
        (sqlite3.OperationalError("database or disk is full"), FULL),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (28)"),
            FULL,
        ),
        (of_database("attempt to write a readonly database"), READ_ONLY),
        (PermissionError(errno.EACCES, "Permission denied"), READ_ONLY),
        (OSError(errno.EROFS, "Read-only file system"), READ_ONLY),
        (DatabaseError("", {}, sqlite3.DatabaseError("file is not a database")), DAMAGED),
        (of_database("database disk image is malformed"), DAMAGED),
        (
            of_database("database is locked"),
            "Another program has locked the database for too long.",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            "The data folder cannot be used: Input/output error.",
        ),
        (
            of_database("no such column: secrets.value"),
            "The database or the data folder cannot be used: OperationalError.",
        ),
    ],
)
def test_storage(error: Exception, sentence: str) -> None:
    assert storage_problem(error) == sentence
    fault = fault_of(error)
    assert (fault.reason, fault.passes) == (sentence, True)


def test_a_disk_that_is_really_full() -> None:
    """Linux has a file that always is."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 — which one is what is tested
        Path("/dev/full").write_bytes(b"0")
    assert storage_problem(caught.value) == FULL


@pytest.mark.parametrize(
    ("error", "passes", "again", "known"),
    [
        (LabelStudioError("Away."), True, False, True),
        (LabelStudioError("Refused.", 401), True, False, True),
        (LabelStudioError("Refused.", 400), False, True, True),
        (LabelStudioError("Refused.", 413), False, False, True),
        (ModelError("Too large."), False, False, True),
        (PoolError("No number."), False, False, True),
        (ImageError("The host is away.", passes=True), True, False, True),
        (ImageError("There is no such image."), False, True, True),
        (ZeroDivisionError("inner detail"), False, False, False),
    ],
)
def test_what_is_tried_again(error: Exception, passes: bool, again: bool, known: bool) -> None:
    fault = fault_of(error)
    assert (fault.passes, fault.again, fault.known) == (passes, again, known)
    assert "inner detail" not in fault.reason


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (LabelStudioError("Refused.", 403), "LABEL_STUDIO_API_KEY"),
        (SettingsError("Impossible."), 'under "Settings"'),
        (LabelingError("No image."), "labeling interface"),
        (ImageError("No answer.", passes=True), "host of the images"),
        (ImagesAwayError({7: ImageError("No answer.")}, 9), "host of the images"),
        (ModelError("Too large."), "start the step again"),
        (PoolError("No number."), "start the step again"),
        (torch.OutOfMemoryError("inner detail"), '"batch_size"'),
        (of_database("database is locked"), "data folder"),
        (ZeroDivisionError("inner detail"), "the backend's log"),
    ],
)
def test_every_fault_has_advice(error: Exception, advice: str) -> None:
    assert advice in fault_of(error).advice
