"""What goes wrong when Label Studio is asked, as a sentence."""

from __future__ import annotations

import httpx
from label_studio_sdk.core.api_error import ApiError


class LabelStudioError(Exception):
    """Label Studio could not be asked, or refused; the message is a sentence, without secrets.

    Attributes:
        status: the HTTP status, None where no answer came.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class asking_to:  # noqa: N801 — reads as the keyword that it stands for
    """Turns what the SDK and httpx raise into a sentence."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # No JSON, or none that the SDK knows, or a page where there should be data.
        strange = isinstance(error, ApiError) and (error.status_code or 0) < 400
        if isinstance(error, httpx.InvalidURL):
            raise LabelStudioError("Label Studio's address is none that can be asked.") from None
        if strange or isinstance(error, ValueError):
            raise LabelStudioError(
                f"What answered when asked to {self.what} is no Label Studio."
            ) from None
        if isinstance(error, ApiError):
            raise LabelStudioError(
                f"Label Studio refused to {self.what}: {_refusal(error)}", error.status_code
            ) from None
        if isinstance(error, httpx.HTTPError):
            raise LabelStudioError(
                f"Label Studio could not be asked to {self.what}: {_failure(error)}"
            ) from None


def _failure(error: httpx.HTTPError) -> str:
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.TooManyRedirects)):
        return "it redirects to an address that is not its own"
    return type(error).__name__


def _refusal(error: ApiError) -> str:
    body = error.body
    detail = body.get("detail") if isinstance(body, dict) else None
    return f"{error.status_code} {detail or ''}".strip()[:200]
