"""Times as Label Studio gives and takes them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment_of(time: object) -> datetime | None:
    """A time as the store keeps it, None if it is none; the SDK leaves some as text."""
    try:
        moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError:
        return None
    if not isinstance(moment, datetime):
        return None
    return moment.astimezone(UTC).replace(tzinfo=None)


def stamp(time: datetime) -> str:
    """A time in UTC in the one spelling that Label Studio's filters read."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
