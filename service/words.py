"""How the commands say things: versions and times. Whatever a record holds has a way to be said."""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo


def shown_version(record: Mapping[str, object]) -> str:
    """Return what people call a build: the tag, or else v and the version."""
    return str(record.get("gitTag") or f"v{record['version']}")


def utc_time(milliseconds: int) -> str:
    """Return a time in UTC, to the second."""
    return f"{_time(milliseconds, UTC)} UTC"


def local_time(milliseconds: int) -> str:
    """Return a time where this computer is, to the second."""
    return _time(milliseconds, None)


def ago(milliseconds: float) -> str:
    """Return how long ago that is, roughly."""
    seconds = max(0, milliseconds / 1000)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _time(milliseconds: int, zone: tzinfo | None) -> str:
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # a record may hold the year 287396
        return f"{milliseconds} ms after 1970"
