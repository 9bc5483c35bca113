"""One way of logging for every process."""

from __future__ import annotations

import logging


def set_up_logging(level: str) -> None:
    """Log lines with time and level; requests to Label Studio are not worth a line each."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "huey"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
