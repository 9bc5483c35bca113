"""What to do about a problem that a job told of."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ADVICE = (
    (
        r"could not be asked",
        "see that Label Studio runs and that the backend reaches its address; the backend tries "
        "again by itself.",
    ),
    (
        r"refused to .*: 40[13]",
        "give the backend the access token of a user who may change the project "
        "(LABEL_STUDIO_API_KEY), and restart it.",
    ),
    (
        r"refused to .*: 404",
        "the project or a task of it is gone from Label Studio; connect the project again if it "
        "should still be served.",
    ),
    (r"model version in Label Studio is", 'press "Rescore", or wait for the next round.'),
    (r'^Setting "', 'change it under "Settings"; it takes effect at once.'),
    (
        r'labeling config|<[A-Z]\w+>|has no control|control "',
        "change the labeling interface in Label Studio's project settings; the backend notices.",
    ),
    (r"images cannot be used|could not be read", "mend or remove the images that the log names."),
    (
        r"out of memory|memory",
        'set a smaller "batch_size" or "image_size" under "Settings", then start the training.',
    ),
    (
        r"Internal error",
        "read the backend's log, which has the details; then start the step again below.",
    ),
    (r"worker died", "see whether the machine ran out of memory; then start the step again below."),
)


def advice_on(problem: str | None) -> str | None:
    """What a person can do about a problem; None where there is none."""
    if problem is None:
        return None
    for pattern, advice in _ADVICE:
        if re.search(pattern, problem):
            return advice
    return "when it is mended, start the step again; the problem goes away once it succeeds."


class ActionError(ValueError):
    """What was asked for is impossible; the message is a sentence that says why.

    Attributes:
        status: as HTTP has it, 404 where there is no such thing and 409 where it cannot be now.
    """

    def __init__(self, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


class RefusedError(ValueError):
    """A project that cannot be served; the message is a sentence that Label Studio shows."""


class LabelingError(ValueError):
    """A labeling config that cannot be served; the message is a sentence for its author."""


_REFUSED = frozenset({400, 405, 409, 413, 422})


class LabelStudioError(Exception):
    """Label Studio could not be asked, or refused; the message is a sentence, without secrets.

    Attributes:
        status: the HTTP status, None where no answer came.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later; a refused one is refused again."""
        return self.status not in _REFUSED


class DataFolderError(Exception):
    """Nothing can run on the data folder or the database; the message is a sentence."""


class BackupError(Exception):
    """There is no backup; the message is a sentence that says why."""


class WorkerError(Exception):
    """The worker cannot start; the message says why."""


class ImageError(Exception):
    """An image cannot be fetched or decoded; the round goes on without it.

    Attributes:
        reason: One plain sentence for people. It never holds a secret (an address's query may be
            a signature, so only host names are named) nor a path of this machine.
        passes: Whether it may be had later, such as from a host that is away.
    """

    def __init__(self, reason: str, passes: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passes = passes


class ImagesAwayError(Exception):
    """So many images cannot be had for now that it is better to wait than to go on without."""

    def __init__(self, problems: Mapping[int, ImageError], asked: int) -> None:
        task_id, first = next(iter(problems.items()))
        super().__init__(
            f"{len(problems)} of {asked} images cannot be had for now; task {task_id}: "
            f"{first.reason}"
        )


class SettingsError(ValueError):
    """Settings that cannot be used; the message is one sentence for whoever typed them."""
