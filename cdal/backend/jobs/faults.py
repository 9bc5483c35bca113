"""Faults: why a job failed, in a sentence, what to do about it, and whether to try again."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cdal.backend.errors import (
    START_AGAIN,
    BackendError,
    ClusterError,
    ImageError,
    ImagesAwayError,
    LabelStudioError,
)
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.models import ModelError
from cdal.selectors import PoolError

MAKE_SMALLER = (
    'set a smaller "batch_size" or "image_size" under "Settings", then start the training.'
)
CHECK_DATA_FOLDER = (
    "check the data folder and the database; the backend goes on by itself once it can use them."
)
READ_LOG = "read the backend's log, which has the details; then start the step again below."


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a job could not be done.

    Attributes:
        reason: one sentence for people, without secrets.
        advice: what a person can do about it.
        passes: the job itself is not at fault and succeeds once what it needs is available.
        again: whether trying again may help although the job itself was refused.
        known: False for an unexpected error.
        label_studio: whether Label Studio did not answer or refused.
        no_answer: whether Label Studio did not answer at all, so that it will not answer others.
    """

    reason: str
    advice: str = START_AGAIN
    passes: bool = False
    again: bool = False
    known: bool = True
    label_studio: bool = False
    no_answer: bool = False


def fault_of(error: Exception) -> Fault:
    """Describe an error that ended a job."""
    if isinstance(error, LabelStudioError):
        # A 400 may be about a task that has just been deleted.
        again = error.status == 400
        return Fault(
            str(error),
            error.advice,
            passes=error.passes,
            again=again,
            label_studio=True,
            no_answer=error.is_away,
        )
    if isinstance(error, ImageError):
        # The next attempt leaves out an image that is gone for good, and says why.
        return Fault(error.reason, error.advice, passes=error.passes, again=not error.passes)
    if isinstance(error, BackendError):
        passes = isinstance(error, (ClusterError, ImagesAwayError))
        return Fault(str(error), error.advice, passes=passes)
    if isinstance(error, (ModelError, PoolError)):
        return Fault(str(error))
    if isinstance(error, torch.OutOfMemoryError):
        reason = "The GPU has no memory left even for a single image."
        return Fault(reason, MAKE_SMALLER, passes=True)
    if isinstance(error, STORAGE):
        return Fault(storage_problem(error), CHECK_DATA_FOLDER, passes=True)
    return Fault(f"Internal error, see the log: {type(error).__name__}", READ_LOG, known=False)
