"""Gunicorn's own lines, written as all others are."""

from __future__ import annotations

import logging
import os
from typing import Any

from gunicorn.glogging import Logger

from cdal.backend.logs import set_up_logging


class PlainLogger(Logger):  # type: ignore[misc]
    """Hands what gunicorn says to the process's own logging."""

    def setup(self, cfg: Any) -> None:
        level = cfg.loglevel.upper()
        set_up_logging(level, os.environ.get("CDAL_LOG_FORMAT") or "text")
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(level)
