"""Faults: what may go wrong in a job, in a sentence, and whether to try again."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cdal.backend.errors import (
    ImageError,
    ImagesAwayError,
    LabelingError,
    LabelStudioError,
    SettingsError,
)
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.models import ModelError
from cdal.selectors import PoolError

# A person can mend these; their messages are written for people.
TOLD = (LabelStudioError, ImagesAwayError, LabelingError, ModelError, PoolError, SettingsError)


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
        # Refused for a task that was deleted meanwhile, perhaps.
        again = error.status == 400
        return Fault(str(error), passes=error.passes, again=again, label_studio=True)
    if isinstance(error, ImagesAwayError):
        return Fault(str(error), passes=True)
    if isinstance(error, ImageError):
        # One that is gone for good is left out next time, with its reason.
        return Fault(error.reason, passes=error.passes, again=not error.passes)
    if isinstance(error, TOLD):
        return Fault(str(error))
    if isinstance(error, torch.OutOfMemoryError):
        return Fault("The GPU has no memory left even for a single image.", passes=True)
    if isinstance(error, STORAGE):
        return Fault(storage_problem(error), passes=True)
    return Fault(f"Internal error, see the log: {type(error).__name__}", known=False)
