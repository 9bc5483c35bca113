"""The backend's errors: one tree, in which each error knows what a person can do about it.

BackendError
    ConfigError             a project cannot be served as it is configured
        SettingsError       because of its settings
        LabelingError       because of its labeling config
    RefusedError            a call from Label Studio is refused
    ActionError             what somebody requested is impossible
    LabelStudioError        Label Studio did not answer, or refused
    ImageError              an image cannot be fetched or decoded
        LargerError         because its file is larger than allowed
    ImagesAwayError         so many images are unavailable that the job waits for them
    ClusterError            the Ray cluster does not answer; the job waits for it
    DamagedScoresError      kept scores are damaged or gone; their images are scored again
    DataFolderError         the data folder or the database cannot be used
    BackupError             a backup cannot be made or checked
    WorkerError             the worker cannot start

Every message is one sentence for people and holds no secrets.
"""

from __future__ import annotations

from collections.abc import Mapping

START_AGAIN = (
    "once the cause is fixed, start the step again; the problem disappears when it succeeds."
)
CHANGE_SETTINGS = 'change it under "Settings"; it takes effect at once.'
CHECK_LABEL_STUDIO = (
    "check that Label Studio runs and that the backend can reach its address; the backend tries "
    "again by itself."
)
GRANT_ACCESS = (
    "give the backend the access token of a user who may change the project "
    "(LABEL_STUDIO_API_KEY), and restart it."
)
CALL_AGAIN = (
    "open a task of the project in Label Studio, which then tells the backend its new address; if "
    'the project is no longer there, remove it with "cdal forget".'
)
CONNECT_AGAIN = (
    "the project or one of its tasks has been deleted in Label Studio; connect the project again "
    "if it should still be served."
)


class BackendError(Exception):
    """An error that people are told about.

    Attributes:
        advice: what a person can do about it, to follow "What to do:".
    """

    advice = START_AGAIN

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        if advice is not None:
            self.advice = advice


class ConfigError(BackendError):
    """A project cannot be served as it is configured."""


class SettingsError(ConfigError):
    """A project's settings cannot be used; the message names the setting."""

    advice = CHANGE_SETTINGS


class LabelingError(ConfigError):
    """A labeling config cannot be served; the message names the tag."""

    advice = (
        "change the labeling interface in Label Studio's project settings; the backend notices."
    )


class RefusedError(BackendError):
    """A call from Label Studio is refused; Label Studio shows the message."""


class ActionError(BackendError):
    """What somebody requested is impossible.

    Attributes:
        status: the HTTP status: 404 for something that does not exist, 409 for something that is
            impossible now.
    """

    def __init__(self, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


_FROM_A_PROXY = frozenset({502, 503, 504})
"""Answers of a proxy whose server does not answer."""

_REFUSED = frozenset({400, 405, 409, 413, 422})


class LabelStudioError(BackendError):
    """Label Studio did not answer, or refused.

    Attributes:
        status: the HTTP status, None if no answer came.
        is_away: whether the server did not answer, so that it will not answer others.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        advice: str | None = None,
        is_away: bool = False,
    ) -> None:
        super().__init__(message, advice=advice or _advice_on_status(status))
        self.status = status
        self.is_away = is_away or status in _FROM_A_PROXY

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later; a refused one is refused again."""
        return self.status not in _REFUSED


def _advice_on_status(status: int | None) -> str:
    if status is None or status >= 500 or status == 429:
        return CHECK_LABEL_STUDIO
    if status in (401, 403):
        return GRANT_ACCESS
    return CONNECT_AGAIN if status == 404 else START_AGAIN


class ImageError(BackendError):
    """An image cannot be fetched or decoded; the round goes on without it.

    Attributes:
        reason: One plain sentence for people. It never holds a secret (an address's query may be
            a signature, so only host names appear) nor a path of this machine.
        passes: Whether it may be available later, as when its host does not answer.
    """

    advice = "fix the image or remove its task; the log names the images."

    def __init__(self, reason: str, passes: bool = False) -> None:
        super().__init__(reason, advice=ImagesAwayError.advice if passes else None)
        self.reason = reason
        self.passes = passes


class LargerError(ImageError):
    """An image's file is larger than allowed."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The image is larger than {max_bytes:,} bytes.")


class ImagesAwayError(BackendError):
    """So many images are unavailable now that it is better to wait than to go on without them."""

    advice = (
        "check that the backend can reach the host of the images; the backend tries again by "
        "itself."
    )

    def __init__(self, problems: Mapping[int, ImageError], asked: int) -> None:
        task_id, first = next(iter(problems.items()))
        super().__init__(
            f"{len(problems)} of {asked} images are unavailable now; task {task_id}: {first.reason}"
        )


class ClusterError(BackendError):
    """The Ray cluster does not answer, or has lost what a job computed on it."""

    advice = (
        "check that the Ray cluster runs and that the worker's machine is one of its nodes "
        "(CDAL_RAY_ADDRESS); the backend tries again by itself."
    )


class DamagedScoresError(BackendError):
    """A file of kept scores is damaged, of another format or gone; its images must be scored again.

    Args:
        file: its name; None if there is no file left.
    """

    def __init__(self, file: str | None) -> None:
        if file is None:
            super().__init__("The kept scores are gone.")
        else:
            super().__init__(f"The file {file} of kept scores is damaged or of another format.")


class DataFolderError(BackendError):
    """The data folder or the database cannot be used."""


class BackupError(BackendError):
    """A backup cannot be made or checked."""


class WorkerError(BackendError):
    """The worker cannot start."""
