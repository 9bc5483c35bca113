"""Whether the backend can do its work, as it says."""

from __future__ import annotations

from typing import Literal

from cdal.backend.schema.view import View


class CheckView(View):
    name: Literal["store", "queue", "worker", "disk", "label studio"]
    ok: bool
    text: str


class ReadyView(View):
    ready: bool
    checks: list[CheckView]
