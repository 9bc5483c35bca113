"""What goes wrong when Label Studio is asked for something, in sentences."""

from __future__ import annotations

import httpx
from label_studio_sdk.core.api_error import ApiError

from cdal.backend.connections import TRUST_IT, is_untrusted
from cdal.backend.errors import GRANT_ACCESS, LabelStudioError
from cdal.backend.label_studio.transport import failure_of
from cdal.text import one_line


class asking_to:  # noqa: N801 — reads as a keyword
    """Turns errors of the SDK and httpx into sentences."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # No JSON, unexpected JSON, or a page instead of data.
        strange = isinstance(error, ApiError) and (error.status_code or 0) < 400
        if isinstance(error, httpx.InvalidURL):
            raise LabelStudioError(f"Label Studio {failure_of(error)}.") from None
        if strange or isinstance(error, ValueError):
            raise LabelStudioError(
                f"The server that answered the request to {self.what} is not Label Studio."
            ) from None
        if isinstance(error, ApiError):
            raise LabelStudioError(
                f"Label Studio refused to {self.what}: {_refusal(error)}", error.status_code
            ) from None
        if isinstance(error, httpx.HTTPError):
            raise LabelStudioError(
                f"Label Studio did not answer the request to {self.what}: it {failure_of(error)}",
                advice=_advice(error),
                is_away=True,
            ) from None


def _advice(error: httpx.HTTPError) -> str | None:
    if isinstance(error, httpx.LocalProtocolError):
        return GRANT_ACCESS
    return TRUST_IT if is_untrusted(error) else None


def _refusal(error: ApiError) -> str:
    body = error.body
    detail = body.get("detail") if isinstance(body, dict) else None
    return one_line(f"{error.status_code} {detail or ''}", 200)
